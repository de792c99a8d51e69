//! `bullet generate`.

use std::io::Read;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use bullet_nn::generate::{Sampler, TextStream};
use bullet_nn::tokenizer::Tokenizer;
use bullet_nn::{Pass, Transformer};
use serde_json::json;

use super::{device, load};
use crate::args::GenerateArgs;
use crate::failure::Failure;
use crate::output::{self, count, note, warn};

pub(crate) fn run(args: &GenerateArgs) -> Result<(), Failure> {
    let sampler = Sampler {
        temperature: args.temperature,
        top_k: args.top_k,
        top_p: args.top_p,
        seed: args.seed.unwrap_or_else(any_seed),
    };
    sampler.validate()?;
    let loaded = load(&args.model, &device(&args.device)?)?;
    let asked = if args.prompt == "-" { read_prompt()? } else { args.prompt.clone() };
    let prompt = known(&loaded.tokenizer, &asked)?;
    if !args.json && !args.no_echo {
        output::stream(&prompt)?;
    }
    let start = Instant::now();
    let (seed, mut text) = (sampler.seed, String::new());
    write(&loaded.model, &loaded.tokenizer, &prompt, args.max_tokens, sampler, |piece| {
        text.push_str(piece);
        if args.json { Ok(()) } else { Ok(output::stream(piece)?) }
    })?;
    let seconds = start.elapsed().as_secs_f64();
    let speed = args.max_tokens as f64 / seconds.max(1e-9);
    if args.json {
        output::json(&json!({
            "model": args.model.display().to_string(), "prompt": prompt, "text": text, "tokens": args.max_tokens,
            "temperature": args.temperature, "top_k": args.top_k, "top_p": args.top_p, "seed": seed,
            "seconds": seconds, "tokens_per_second": speed,
        }))?;
        return Ok(());
    }
    if !text.ends_with('\n') {
        output::line("")?;
    }
    if !args.quiet {
        note(format_args!("[{} tokens, {} tokens/s, --seed {seed}]", args.max_tokens, count(speed)));
    }
    Ok(())
}

/// Writes `max_tokens` tokens that follow `prompt`, giving each piece of text to `sink` as soon as it is there.
pub(crate) fn write(
    model: &Transformer,
    tokenizer: &Tokenizer,
    prompt: &str,
    max_tokens: usize,
    sampler: Sampler,
    mut sink: impl FnMut(&str) -> Result<(), Failure>,
) -> Result<(), Failure> {
    let stream = TextStream::new(model, tokenizer, prompt, max_tokens, sampler, Pass::eval())?;
    for piece in stream {
        sink(&piece?)?;
    }
    Ok(())
}

/// `prompt` without characters that the vocabulary lacks, which are warned of; where it is empty, a line end, since a
/// text has to begin with something.
pub(crate) fn known(tokenizer: &Tokenizer, prompt: &str) -> Result<String, Failure> {
    let (ids, unknown) = tokenizer.encode_lossy(prompt);
    if !unknown.is_empty() {
        warn(format_args!("characters outside the vocabulary are left out: {unknown}"));
    }
    if !ids.is_empty() {
        return Ok(tokenizer.decode(&ids)?);
    }
    if !prompt.is_empty() {
        return Err(Failure::usage("no character of the prompt is in the vocabulary of the model")
            .or_hint("use characters of the text that it was trained on"));
    }
    let newline_known = tokenizer.encode("\n").is_ok();
    Ok(if newline_known { "\n".to_string() } else { tokenizer.decode(&[0])? })
}

fn read_prompt() -> Result<String, Failure> {
    let mut bytes = Vec::new();
    std::io::stdin()
        .read_to_end(&mut bytes)
        .map_err(|e| Failure::failed(format!("could not read the prompt from standard input: {e}")))?;
    String::from_utf8(bytes).map_err(|e| {
        let at = e.utf8_error().valid_up_to();
        Failure::failed(format!("the prompt on standard input is not UTF-8: byte {at} does not belong"))
            .or_hint("convert it, for example with `iconv -t utf-8`")
    })
}

/// A seed that differs from call to call, short enough to type again.
fn any_seed() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    (now.as_nanos() as u64 ^ u64::from(std::process::id()) << 20) % 1_000_000_000
}
