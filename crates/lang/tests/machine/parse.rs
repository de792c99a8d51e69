//! The text of a module as lists of instructions.

use std::collections::HashMap;

/// What an instruction reads, writes or goes to.
#[derive(Clone, Debug)]
pub(crate) enum Arg {
    Register(usize),
    Bits(u64),
    /// An address and bytes behind it.
    Place(Box<Arg>, i64),
    List(Vec<Arg>),
    /// Of a variable, function or parameter.
    Name(String),
    /// The line that a label stands before.
    Label(usize),
}

/// An instruction.
#[derive(Debug)]
pub(crate) struct Line {
    /// The register that decides whether it runs, and the value for which it does.
    pub(crate) guard: Option<(usize, bool)>,
    pub(crate) op: String,
    pub(crate) args: Vec<Arg>,
    pub(crate) text: String,
}

#[derive(Debug, Default)]
pub(crate) struct Function {
    /// Names, bytes and alignments.
    pub(crate) params: Vec<(String, u64, u64)>,
    /// The numbers of registers.
    pub(crate) names: HashMap<String, usize>,
    pub(crate) locals: Vec<(String, u64)>,
    pub(crate) lines: Vec<Line>,
}

#[derive(Debug, Default)]
pub(crate) struct Module {
    pub(crate) functions: HashMap<String, Function>,
    pub(crate) constants: Vec<(String, Vec<u64>)>,
}

/// The bytes of a type.
pub(crate) fn size(ty: &str) -> u64 {
    match ty.trim_start_matches(|c: char| !c.is_ascii_digit()) {
        "8" => 1,
        "16" => 2,
        "32" => 4,
        "64" => 8,
        _ => panic!("{ty} has no size"),
    }
}

impl Module {
    pub(crate) fn parse(text: &str) -> Module {
        let mut module = Module::default();
        let mut lines = text.lines();
        while let Some(line) = lines.next() {
            if let Some(rest) = line.strip_prefix(".const .align 8 .b64 ") {
                let (name, values) = rest.split_once('=').expect("values");
                let name = name.split('[').next().expect("a name").into();
                let values = values.trim_matches(|c| "{};".contains(c)).split(',');
                let number = |text: &str| match text.strip_prefix("0x") {
                    Some(digits) => u64::from_str_radix(digits, 16).expect("a number"),
                    None => text.parse().expect("a number"),
                };
                module.constants.push((name, values.map(number).collect()));
            } else if line.starts_with(".visible .entry") || line.starts_with(".func") {
                let body: Vec<&str> = lines.by_ref().skip(1).take_while(|&line| line != "}").collect();
                let (name, function) = function(line, &body);
                module.functions.insert(name, function);
            }
        }
        module
    }
}

fn function(head: &str, body: &[&str]) -> (String, Function) {
    let mut function = Function::default();
    let is_entry = head.starts_with(".visible");
    let head = head.trim_start_matches(".visible .entry ").trim_start_matches(".func (");
    let head = if is_entry { head } else { head.split_once(") ").expect("a result").1 };
    let (name, params) = head.split_once('(').expect("parameters");
    for param in params.trim_end_matches(')').split(',') {
        let words: Vec<&str> = param.split(' ').collect();
        let last = words[words.len() - 1];
        if !is_entry {
            let number = function.names.len();
            function.names.insert(last.into(), number);
            continue;
        }
        let (name, length) = last.split_once('[').map_or((last, 1), |(name, length)| {
            (name, length.trim_end_matches(']').parse().expect("a length"))
        });
        let unit = size(words[words.len() - 2]);
        let alignment = if words[1] == ".align" { words[2].parse().expect("a number") } else { unit };
        function.params.push((name.into(), unit * length, alignment));
    }
    if !is_entry {
        let number = function.names.len();
        function.names.insert("y".into(), number);
    }
    let mut labels = HashMap::new();
    let mut texts = vec![];
    for line in body {
        if let Some(label) = line.strip_suffix(':') {
            labels.insert(label.to_string(), texts.len());
        } else if let Some(rest) = line.strip_prefix(".reg .") {
            let name = rest.split(' ').nth(1).expect("a name");
            let (stem, count) = name.trim_end_matches(">;").split_once('<').expect("a count");
            for i in 0..count.parse::<usize>().expect("a count") {
                let number = function.names.len();
                function.names.insert(format!("{stem}{i}"), number);
            }
        } else if let Some(rest) = line.strip_prefix(".local ") {
            let (name, bytes) =
                rest.split(' ').next_back().expect("a name").split_once('[').expect("a length");
            function.locals.push((name.into(), bytes.trim_end_matches("];").parse().expect("a length")));
        } else {
            texts.push(*line);
        }
    }
    function.lines = texts.iter().map(|text| line(text, &function.names, &labels)).collect();
    (name.into(), function)
}

fn line(text: &str, names: &HashMap<String, usize>, labels: &HashMap<String, usize>) -> Line {
    let mut rest = text.trim_end_matches(';');
    let mut guard = None;
    if let Some(guarded) = rest.strip_prefix('@') {
        let (register, behind) = guarded.split_once(' ').expect("an instruction");
        let when = !register.starts_with('!');
        guard = Some((names[register.trim_start_matches('!')], when));
        rest = behind;
    }
    let (op, args) = rest.split_once(' ').unwrap_or((rest, ""));
    let args = split(args).into_iter().map(|arg| self::arg(arg, names, labels)).collect();
    Line { guard, op: op.into(), args, text: text.into() }
}

/// Parts between commas that are in no brackets.
fn split(text: &str) -> Vec<&str> {
    let (mut parts, mut depth, mut begin) = (vec![], 0, 0);
    for (i, c) in text.char_indices() {
        match c {
            '(' | '{' | '[' => depth += 1,
            ')' | '}' | ']' => depth -= 1,
            ',' if depth == 0 => {
                parts.push(&text[begin..i]);
                begin = i + 1;
            }
            _ => {}
        }
    }
    if begin < text.len() {
        parts.push(&text[begin..]);
    }
    parts
}

fn arg(text: &str, names: &HashMap<String, usize>, labels: &HashMap<String, usize>) -> Arg {
    let inner = |text: &str| arg(text, names, labels);
    if let Some(&register) = names.get(text) {
        return Arg::Register(register);
    }
    if let Some(&label) = labels.get(text) {
        return Arg::Label(label);
    }
    if let Some(list) = text.strip_prefix(['(', '{']) {
        return Arg::List(split(&list[..list.len() - 1]).into_iter().map(inner).collect());
    }
    if let Some(place) = text.strip_prefix('[') {
        let place = place.trim_end_matches(']');
        let (base, offset) = match place.find(['+', '-']) {
            Some(at) => (&place[..at], place[at..].parse().expect("an offset")),
            None => (place, 0),
        };
        return Arg::Place(Box::new(inner(base)), offset);
    }
    if let Some(digits) = text.strip_prefix("0f").or_else(|| text.strip_prefix("0d")) {
        return Arg::Bits(u64::from_str_radix(digits, 16).expect("digits"));
    }
    match text.parse::<i64>() {
        Ok(number) => Arg::Bits(number as u64),
        Err(_) => Arg::Name(text.into()),
    }
}
