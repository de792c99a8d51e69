//! `cargo xtask test`: everything that must pass before a change goes in, as a list of stages.
//!
//! It sets up what it needs on a fresh machine, prints each stage with its time, and closes with a line
//! `N passed, N failed`, the sum of the test counts. A stage that could not run is a failure.

mod array_api;
mod binaries;
mod libtest;
pub(crate) mod python;
mod stages;
mod wheels;

use std::process::ExitCode;
use std::time::{Duration, Instant};

use binaries::Binary;
use libtest::Counts;
use stages::STAGES;

pub(crate) const HELP: &str = "everything that must pass: format, tidy, clippy, tests, docs

  --quick        leave out the slow checks that are not tests: clippy and doc
  --stage NAME   only this stage (may be given more than once)
  --keep-going   after a failed stage, run the others too
  --list         list the stages";

/// One stage: what it is called, what it shows, and whether `--quick` leaves it out.
struct Stage {
    name: &'static str,
    help: &'static str,
    in_quick: bool,
    run: fn(&mut Session) -> Result<(), String>,
}

/// What the stages share.
#[derive(Default)]
struct Session {
    /// The test programs; built by the first stage that needs them.
    binaries: Option<Result<Vec<Binary>, String>>,
    /// The counts of all stages so far.
    counts: Counts,
}

/// How one stage went.
struct Report {
    name: &'static str,
    elapsed: Duration,
    counts: Counts,
    failure: Option<String>,
}

/// Which stages to run, from the command line.
#[derive(Default)]
struct Options {
    quick: bool,
    keep_going: bool,
    only: Vec<String>,
}

/// Runs the task.
pub(crate) fn run(arguments: &[String]) -> Result<ExitCode, String> {
    if arguments.iter().any(|argument| argument == "--list") {
        for stage in STAGES {
            println!("{:8} {}", stage.name, stage.help);
        }
        return Ok(ExitCode::SUCCESS);
    }
    let options = parse(arguments)?;
    let start = Instant::now();
    let mut session = Session::default();
    let mut reports = Vec::new();
    let chosen: Vec<&Stage> = STAGES.iter().filter(|stage| options.chooses(stage)).collect();
    for stage in &chosen {
        let report = run_stage(stage, &mut session);
        let failed = report.failure.is_some();
        reports.push(report);
        if failed && !options.keep_going {
            break;
        }
    }
    summarise(&reports, &chosen, start.elapsed());
    // The last line, for programs to read; nothing follows it.
    println!("{} passed, {} failed", session.counts.passed, session.counts.failed);
    let all_passed = reports.iter().all(|report| report.failure.is_none());
    Ok(if all_passed { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

impl Options {
    fn chooses(&self, stage: &Stage) -> bool {
        let named = self.only.is_empty() || self.only.iter().any(|name| name == stage.name);
        named && (stage.in_quick || !self.quick)
    }
}

fn parse(arguments: &[String]) -> Result<Options, String> {
    let mut options = Options::default();
    let mut rest = arguments.iter();
    while let Some(argument) = rest.next() {
        match argument.as_str() {
            "--quick" => options.quick = true,
            "--keep-going" => options.keep_going = true,
            "--stage" => {
                let name = rest.next().ok_or("--stage needs a stage's name; --list shows them")?;
                if !STAGES.iter().any(|stage| stage.name == name) {
                    return Err(format!("there is no stage `{name}`; --list shows them"));
                }
                options.only.push(name.clone());
            }
            other => return Err(format!("unknown option `{other}`; --help lists them")),
        }
    }
    if options.quick && !options.only.is_empty() {
        return Err("--quick chooses the stages itself: give it or --stage, not both".into());
    }
    Ok(options)
}

fn run_stage(stage: &Stage, session: &mut Session) -> Report {
    println!("\n=== {}: {}", stage.name, stage.help);
    let before = session.counts;
    let start = Instant::now();
    let failure = (stage.run)(session).err();
    let elapsed = start.elapsed();
    if let Some(message) = &failure {
        println!("{message}");
    }
    let counts = Counts {
        passed: session.counts.passed - before.passed,
        failed: session.counts.failed - before.failed,
        ignored: session.counts.ignored - before.ignored,
    };
    Report { name: stage.name, elapsed, counts, failure }
}

fn summarise(reports: &[Report], chosen: &[&Stage], elapsed: Duration) {
    println!("\n=== summary, {:.0} s", elapsed.as_secs_f64());
    for report in reports {
        let verdict = if report.failure.is_some() { "FAILED" } else { "ok" };
        let counts = match report.counts {
            Counts { passed: 0, failed: 0, .. } => String::new(),
            Counts { passed, failed, ignored } => {
                format!("{passed} passed, {failed} failed, {ignored} ignored")
            }
        };
        println!("{:8} {verdict:6} {:7.1} s  {counts}", report.name, report.elapsed.as_secs_f64());
    }
    for stage in &chosen[reports.len()..] {
        println!("{:8} not run", stage.name);
    }
    let failed: Vec<_> = reports.iter().filter(|r| r.failure.is_some()).map(|r| r.name).collect();
    if !failed.is_empty() {
        println!("\nFAILED: {}", failed.join(", "));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(line: &str) -> Vec<String> {
        line.split_whitespace().map(str::to_owned).collect()
    }

    #[test]
    fn stage_names_are_unique() {
        for (i, stage) in STAGES.iter().enumerate() {
            assert!(!STAGES[..i].iter().any(|other| other.name == stage.name), "{} twice", stage.name);
        }
    }

    #[test]
    fn quick_leaves_out_clippy_and_doc_only() {
        let quick = parse(&words("--quick")).unwrap();
        let left_out: Vec<_> = STAGES.iter().filter(|s| !quick.chooses(s)).map(|s| s.name).collect();
        assert_eq!(left_out, ["clippy", "doc"]);
    }

    #[test]
    fn a_named_stage_runs_alone() {
        let options = parse(&words("--stage tidy --stage fmt")).unwrap();
        let chosen: Vec<_> = STAGES.iter().filter(|s| options.chooses(s)).map(|s| s.name).collect();
        assert_eq!(chosen, ["fmt", "tidy"]);
    }

    #[test]
    fn wrong_options_are_refused() {
        for line in ["--stage", "--stage nothing", "--fast", "--quick --stage tidy"] {
            assert!(parse(&words(line)).is_err(), "{line}");
        }
    }

    #[test]
    fn a_failing_stage_is_reported_with_the_tests_it_counted() {
        let stage = Stage {
            name: "x",
            help: "",
            in_quick: true,
            run: |session| {
                session.counts += Counts { passed: 3, failed: 1, ignored: 0 };
                Err("boom".into())
            },
        };
        let mut session = Session { counts: Counts { passed: 5, ..Counts::default() }, ..Session::default() };
        let report = run_stage(&stage, &mut session);
        assert_eq!(report.counts, Counts { passed: 3, failed: 1, ignored: 0 });
        assert_eq!(report.failure.as_deref(), Some("boom"));
        assert_eq!(session.counts.passed, 8);
    }
}
