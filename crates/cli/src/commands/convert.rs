//! `bullet convert`.

use bullet_nn::format::{ModelFile, convert};
use serde_json::json;

use super::model_path;
use crate::args::ConvertArgs;
use crate::failure::Failure;
use crate::output;

pub(crate) fn run(args: &ConvertArgs) -> Result<(), Failure> {
    let source = model_path(&args.source)?;
    convert(&source, &args.destination)?;
    // The result as it can be read back, not as it was meant.
    let written = ModelFile::open(&args.destination)?;
    let tensors = written.tensors();
    let size = std::fs::metadata(&args.destination).map_or(0, |m| m.len());
    if args.json {
        let paths = [&source, &args.destination].map(|p| p.display().to_string());
        output::json(&json!({
            "source": paths[0], "destination": paths[1], "tensors": tensors.len(), "bytes": size
        }))?;
    } else {
        let what = format!("{} tensors, {}", tensors.len(), output::bytes(size));
        output::line(format_args!("wrote {}: {what}", args.destination.display()))?;
    }
    Ok(())
}
