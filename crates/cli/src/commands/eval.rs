//! `bullet eval`.

use bullet_nn::data::{Encoding, TextOptions, TextSource, TokenDataset};
use bullet_nn::train::{LoadedModel, evaluate, saved_data};
use bullet_nn::{LanguageModel, Pass};
use serde_json::json;

use super::{device, load, model_path};
use crate::args::EvalArgs;
use crate::failure::Failure;
use crate::output::{self, number, warn};

pub(crate) fn run(args: &EvalArgs) -> Result<(), Failure> {
    let device = device(&args.device)?;
    let loaded = load(&args.model, &device)?;
    let positions = loaded.model.max_seq();
    let seq = args.seq.map_or(positions, Into::into);
    if seq > positions {
        return Err(Failure::usage(format!(
            "`--seq` = {seq}: the model has positions for {positions} tokens"
        ))
        .or_hint(format!("give --seq {positions} or less, or leave it out")));
    }
    let (data, what) = dataset(args, &loaded)?;
    if !data.unknown.is_empty() {
        warn(format_args!("characters outside the vocabulary are left out: {}", data.unknown));
    }
    let shape = [args.batch_size.into(), seq];
    let loss = evaluate(&loaded.model, &data, shape, &Pass::eval(), &device)?;
    let bits = data.bits_per_byte(loss).unwrap_or(f64::NAN);
    let (tokens, bytes) = (data.validation.len(), data.validation_bytes);
    if args.json {
        output::json(&json!({
            "model": args.model.display().to_string(), "text": what, "tokens": tokens, "bytes": bytes,
            "unknown_characters": data.unknown.total(), "seq": seq,
            "loss": loss, "perplexity": loss.exp(), "bits_per_byte": bits,
        }))?;
        return Ok(());
    }
    output::line(format_args!("text           {what}: {bytes} bytes, {tokens} tokens"))?;
    output::line(format_args!("loss           {} nats per token", number(loss, 4)))?;
    output::line(format_args!("perplexity     {}", number(loss.exp(), 2)))?;
    output::line(format_args!("bits per byte  {}", number(bits, 4)))?;
    Ok(())
}

/// The text to measure on as validation tokens, and what it is.
fn dataset(args: &EvalArgs, loaded: &LoadedModel) -> Result<(TokenDataset, String), Failure> {
    if let Some(path) = &args.data {
        let encoding = if args.lossy { Encoding::Lossy } else { Encoding::Utf8 };
        let source = TextSource::load(path, &TextOptions { encoding })?;
        // So small a share for training leaves it nothing: all of the text is measured.
        let data = TokenDataset::new(&source.text, &loaded.tokenizer, f64::MIN_POSITIVE)?;
        return Ok((data, path.display().to_string()));
    }
    let Some(state) = &loaded.training else {
        let message = format!("{} does not say what text it was trained on", args.model.display());
        return Err(Failure::usage(message).or_hint("name a text with --data"));
    };
    let data = saved_data(state, &model_path(&args.model)?, &loaded.tokenizer)
        .map_err(|e| Failure::from(e).or_hint("--data PATH measures on all of another text"))?;
    let path = &state.config.data.path;
    let name = if path.is_empty() { "Tiny Shakespeare" } else { path };
    Ok((data, format!("the validation part of {name}")))
}
