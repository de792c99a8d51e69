//! An option of `bullet train` for every setting of the table in [`bullet_nn::config`]: nothing is listed here, so
//! that files and command line cannot drift apart.

use bullet_nn::config::{Config, Field, fields, sections};
use clap::error::ErrorKind;
use clap::{Arg, ArgAction, ArgMatches, Args, FromArgMatches};

use crate::failure::Failure;

/// Settings given on the command line, as (key, text).
#[derive(Clone, Default, Debug)]
pub(crate) struct Settings(Vec<(&'static str, String)>);

impl Settings {
    /// Writes them into `config`.
    pub(crate) fn apply(&self, config: &mut Config) -> Result<(), Failure> {
        if self.0.iter().any(|(key, text)| *key == "data.path" && text.is_empty()) {
            // Most often a variable of a script that is not set.
            return Err(Failure::usage("`--data` is empty: expected a text file or a folder of text files")
                .or_hint("leave --data out to train on Tiny Shakespeare"));
        }
        let wrong: Vec<String> =
            self.0.iter().filter_map(|(key, text)| config.set(key, text).err()).map(|e| e.message).collect();
        if wrong.is_empty() { Ok(()) } else { Err(Failure::usage(wrong.join("\n"))) }
    }
}

/// The name of the option: that of the setting, with its section where another has the same.
fn long(field: &Field) -> String {
    let name = field.name().replace('_', "-");
    if field.is_unique() { name } else { format!("{}-{name}", field.section()) }
}

/// A word for the value, such as `N` or `bpe|char`.
fn value_name(field: &Field) -> String {
    let expected = &field.expected;
    match expected.strip_prefix("one of ") {
        Some(choices) => choices.replace(", ", "|"),
        None if expected.starts_with("a whole") => "N".into(),
        None if expected.starts_with("a number") => "X".into(),
        None if expected.starts_with("true") => "true|false".into(),
        None => "TEXT".into(),
    }
}

fn option(field: &'static Field) -> Arg {
    let section = field.section();
    let about = sections().iter().find(|(name, _)| *name == section).map_or("", |(_, about)| about);
    let default = if field.default.is_empty() { "empty" } else { &field.default };
    let doc = field.doc.trim_end_matches('.');
    // Values are read by the table, not by clap: a wrong one is explained the same way wherever it stands.
    let arg = Arg::new(field.key)
        .long(long(field))
        .alias(field.key.to_string())
        .alias(field.key.replace(['.', '_'], "-"))
        .value_name(value_name(field))
        .help(format!("{doc} [default: {default}]"))
        .help_heading(format!("Configuration: [{section}] {}", about.trim_end_matches('.')))
        .hide_short_help(true)
        .allow_hyphen_values(true)
        .action(ArgAction::Set)
        .overrides_with(field.key);
    if field.key == "data.path" { arg.visible_alias("data").hide_short_help(false) } else { arg }
}

impl Args for Settings {
    fn augment_args(command: clap::Command) -> clap::Command {
        fields().iter().fold(command, |command, field| command.arg(option(field)))
    }

    fn augment_args_for_update(command: clap::Command) -> clap::Command {
        Settings::augment_args(command)
    }
}

impl FromArgMatches for Settings {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Settings, clap::Error> {
        let mut settings = Settings::default();
        settings.update_from_arg_matches(matches)?;
        Ok(settings)
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        for field in fields() {
            let given = matches
                .try_get_one::<String>(field.key)
                .map_err(|e| clap::Error::raw(ErrorKind::InvalidValue, e))?;
            self.0.extend(given.map(|text| (field.key, text.clone())));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use clap::{CommandFactory, Parser};

    use super::*;
    use crate::args::{Cli, Command};

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_setting_has_an_option_that_sets_it() {
        for field in fields() {
            let value = match field.key {
                "model.tied" | "optim.nesterov" | "train.recompute" => "true".to_string(),
                "model.bias" | "train.master_weights" => "false".to_string(),
                _ => match field.expected.strip_prefix("one of ") {
                    Some(choices) => choices.split(", ").last().unwrap().to_string(),
                    None if field.expected.starts_with("text") => "some text".to_string(),
                    None => "3".to_string(),
                },
            };
            for option in [long(field), field.key.to_string(), field.key.replace(['.', '_'], "-")] {
                let cli = Cli::try_parse_from(["bullet", "train", &format!("--{option}"), &value])
                    .unwrap_or_else(|e| panic!("--{option}: {e}"));
                let Command::Train(args) = cli.command else { unreachable!() };
                let mut config = Config::default();
                args.settings.apply(&mut config).unwrap();
                assert_eq!(config.get(field.key).unwrap().parse::<f64>().ok(), value.parse::<f64>().ok());
                assert_ne!(config, Config::default(), "--{option} {value} changes nothing");
            }
        }
    }

    #[test]
    fn help_tells_every_default() {
        let help = Cli::command().find_subcommand_mut("train").unwrap().render_long_help().to_string();
        let words = help.split_whitespace().collect::<Vec<_>>().join(" ");
        for field in fields() {
            assert!(help.contains(&format!("--{} <", long(field))), "{}", field.key);
            assert!(words.contains(field.doc.trim_end_matches('.')), "{}", field.doc);
        }
    }
}
