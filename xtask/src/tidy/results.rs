//! The rule of benchmark results: a number in the repository says when, on what and from which commit it came.

use serde_json::Value;

use super::Finding;
use super::tree::{File, Tree};

/// Where published results lie.
const FOLDER: &str = "benches/results/";

/// The fields that a result must have, as strings that are not empty.
const FIELDS: &[&str] = &["date", "device", "commit"];

/// Every JSON file among the results is an object with [`FIELDS`]; the date is `YYYY-MM-DD`.
pub(super) fn provenance(tree: &Tree) -> Vec<Finding> {
    let results = tree.with_extension(&["json"]).filter(|file| file.path.starts_with(FOLDER));
    results.flat_map(check).collect()
}

fn check(file: &File) -> Vec<Finding> {
    let value: Value = match serde_json::from_str(&file.text) {
        Ok(value) => value,
        Err(error) => {
            let message = format!("no JSON: {error}");
            return vec![Finding::new(
                &file.path,
                error.line().max(1),
                message,
                "write it by benches/run.py",
            )];
        }
    };
    let mut findings = Vec::new();
    for field in FIELDS {
        let text = value[field].as_str().unwrap_or_default();
        if text.trim().is_empty() {
            let message = format!("the result has no `{field}`");
            findings.push(Finding::new(&file.path, 1, message, "measure again with benches/run.py"));
        } else if *field == "date" && !is_date(text) {
            let line = file.line_starting("\"date\"");
            let message = format!("`{text}` is no date");
            findings.push(Finding::new(&file.path, line, message, "write it as YYYY-MM-DD"));
        }
    }
    findings
}

/// Whether a text is `YYYY-MM-DD` with a month and a day that exist.
fn is_date(text: &str) -> bool {
    let parts: Vec<&str> = text.split('-').collect();
    let [year, month, day] = parts[..] else { return false };
    let number = |part: &str, digits: usize| {
        let is_number = part.len() == digits && part.bytes().all(|byte| byte.is_ascii_digit());
        is_number.then(|| part.parse::<u32>().ok()).flatten()
    };
    number(year, 4).is_some()
        && number(month, 2).is_some_and(|month| (1..=12).contains(&month))
        && number(day, 2).is_some_and(|day| (1..=31).contains(&day))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn messages(path: &str, text: &str) -> Vec<String> {
        provenance(&Tree::of(&[(path, text)])).into_iter().map(|finding| finding.message).collect()
    }

    #[test]
    fn complete_results_pass() {
        let text = r#"{"date": "2026-11-20", "device": "a CPU", "commit": "0cd425e", "workers": {}}"#;
        assert_eq!(messages("benches/results/a.json", text), [""; 0]);
    }

    #[test]
    fn missing_and_empty_fields_are_found() {
        let text = r#"{"date": "2026-11-20", "device": " "}"#;
        let expected = ["the result has no `device`", "the result has no `commit`"];
        assert_eq!(messages("benches/results/a.json", text), expected);
        assert_eq!(messages("benches/results/a.json", "[]").len(), 3);
    }

    #[test]
    fn a_date_must_be_one() {
        let text = "{\n\"date\": \"20 Nov\", \"device\": \"a\", \"commit\": \"b\"}";
        let findings = provenance(&Tree::of(&[("benches/results/a.json", text)]));
        assert_eq!((findings.len(), findings[0].line), (1, 2));
        assert!(is_date("2026-02-28"));
        for wrong in ["2026-13-01", "2026-1-01", "2026-01-32", "2026-01", "+026-01-01", ""] {
            assert!(!is_date(wrong), "{wrong}");
        }
    }

    #[test]
    fn broken_json_is_found_and_other_files_are_not_read() {
        assert_eq!(messages("benches/results/a.json", "{").len(), 1);
        assert_eq!(messages("benches/results/notes.md", "12 ms"), [""; 0]);
        assert_eq!(messages("docs/a.json", "{}"), [""; 0]);
    }
}
