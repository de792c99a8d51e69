//! Tests over the whole table of settings, and of every message.

use super::*;

/// Another value of each type than the default.
fn changed(field: &Field) -> String {
    let default = &field.default;
    match field.expected.as_str() {
        e if e.starts_with("a whole number") => (default.parse::<u64>().unwrap() + 1).to_string(),
        e if e.starts_with("a number") => format!("{:?}", default.parse::<f64>().unwrap() / 2.0 + 0.125),
        "true or false" => (default != "true").to_string(),
        "text in quotes" => "a \"quoted\" \\ name".to_string(),
        choices => {
            choices.trim_start_matches("one of ").split(", ").find(|c| c != default).unwrap().to_string()
        }
    }
}

#[test]
fn every_field_is_documented_and_round_trips_by_text_toml_and_json() {
    for field in fields() {
        assert!(field.doc.len() > 10 && field.doc.ends_with('.'), "{}: {:?}", field.key, field.doc);
        let mut config = Config::default();
        assert_eq!(field.get(&config), field.default);
        let value = changed(field);
        config.set(&field.key.replace('_', "-"), &value).unwrap();
        assert_eq!(field.get(&config), value, "{}", field.key);
        assert_ne!(config, Config::default(), "{}", field.key);
        assert_eq!(Config::from_toml(&config.to_toml()).unwrap(), config, "{}", field.key);
        let json = serde_json::to_string(&config).unwrap();
        assert_eq!(serde_json::from_str::<Config>(&json).unwrap(), config, "{}", field.key);
    }
}

#[test]
fn the_default_is_valid_and_is_the_empty_file() {
    Config::default().validate().unwrap();
    assert_eq!(Config::from_toml("").unwrap(), Config::default());
}

#[test]
fn unique_names_need_no_section() {
    let mut config = Config::default();
    config.set_pair("batch-size=32").unwrap();
    config.set_pair(" optim.lr = 3e-4").unwrap();
    assert_eq!((config.train.batch_size, config.optim.lr), (32, 3e-4));
    assert!(find("batch_size").unwrap().is_unique());
    let ambiguous = find("kind").err().unwrap().message;
    assert_eq!(ambiguous, "`kind` could be tokenizer.kind or optim.kind: write the section, too");
    assert!(config.set_pair("seed").unwrap_err().message.contains("key=value"));
}

#[test]
fn mistakes_in_files_name_line_key_and_value() {
    for (text, want) in [
        (
            "[train]\nbatchsize = 3",
            "line 2: unknown setting `train.batchsize`; did you mean `train.batch_size`?",
        ),
        ("[model]\nlr = 1e-3", "line 2: unknown setting `model.lr`; did you mean `optim.lr`?"),
        (
            "[optim]\n# comment\nzebra = 1",
            "line 3: unknown setting `optim.zebra`; section [optim] has kind, lr,",
        ),
        ("\n[trian]\nsteps = 1", "line 2: unknown section [trian]; did you mean [train]?"),
        ("[zebra]\nx = 1", "line 1: unknown section [zebra]; there are model, tokenizer, data, optim, train"),
        ("steps = 5", "line 1: unknown setting `steps`; did you mean `train.steps`?"),
        (
            "[train]\nsteps = \"many\"",
            "line 2: `train.steps` = \"many\": expected a whole number from 0 to 2^63 - 1, such as 16 (its default is 1000)",
        ),
        ("[train]\nsteps = -1", "line 2: `train.steps` = -1: expected a whole number"),
        ("[train]\nsteps = 1.5", "line 2: `train.steps` = 1.5: expected a whole number"),
        (
            "optim.kind = \"adamax\"",
            "line 1: `optim.kind` = \"adamax\": expected one of adamw, adam, sgd (its default is adamw)",
        ),
        ("[optim]\nlr = nan", "line 2: `optim.lr` = NaN: expected a number, such as 0.1 or 1e-3"),
        ("[model]\nbias = 1", "line 2: `model.bias` = 1: expected true or false (its default is true)"),
        (
            "[data]\npath = [1]",
            "line 2: `data.path` = a TOML array: expected text in quotes (its default is empty)",
        ),
        ("[model\n", "not TOML: line 1, column "),
    ] {
        let message = Config::from_toml(text).unwrap_err().message;
        assert!(message.starts_with(want), "{text:?} gave\n{message}\nnot\n{want}");
    }
    let two = Config::from_toml("[train]\nsteps = true\n[model]\ndimm = 1").unwrap_err().message;
    assert_eq!(two.lines().count(), 2, "{two}");
}

#[test]
fn settings_that_do_not_fit_name_field_value_and_fix() {
    for (pairs, field, fix) in [
        (
            "model.heads=3",
            "`model.heads` = 3: must divide model.dim = 128",
            "set model.heads to one of 1, 2, 4",
        ),
        ("model.heads=0", "`model.heads` = 0: must be at least 1", "1 or more"),
        ("model.dim=0", "`model.dim` = 0", "1 or more"),
        ("model.seq=0", "`model.seq` = 0", "1 or more"),
        ("model.kv_heads=3", "`model.kv_heads` = 3: must divide model.heads = 4", "divisor"),
        (
            "model.dim=12 model.positions=rope",
            "`model.positions` = rope",
            "even number of channels a head, not 3",
        ),
        ("model.dropout=1", "`model.dropout` = 1.0: must be in 0..1", "below 1"),
        ("model.vocab=100", "`model.vocab` = 100", "set model.vocab to 3000 or to 0"),
        ("tokenizer.vocab_size=255", "`tokenizer.vocab_size` = 255", "256 or more"),
        ("data.val_fraction=0", "`data.val_fraction` = 0.0", "0.1"),
        ("optim.lr=0", "`optim.lr` = 0.0: must be above 0", "1e-3"),
        ("optim.min_lr=0.01", "`optim.min_lr` = 0.01: must be between 0 and optim.lr = 0.001", "tenth"),
        ("optim.beta2=1", "`optim.beta2` = 1.0", "below 1"),
        ("optim.eps=0", "`optim.eps` = 0.0", "1e-8"),
        ("optim.weight_decay=-1", "`optim.weight_decay` = -1.0: must not be negative", "0 or more"),
        (
            "optim.kind=sgd optim.momentum=0 optim.nesterov=true",
            "`optim.nesterov` = true",
            "optim.momentum above 0",
        ),
        (
            "optim.warmup=2000",
            "`optim.warmup` = 2000: warm-up is longer than the run of train.steps = 1000",
            "set optim.warmup to 1000 or less",
        ),
        (
            "optim.schedule=cosine optim.warmup=50 optim.decay_steps=50",
            "`optim.decay_steps` = 50",
            "optim.warmup",
        ),
        ("optim.schedule=step optim.step_size=0", "`optim.step_size` = 0", "1 or more"),
        ("optim.schedule=step optim.step_gamma=2", "`optim.step_gamma` = 2.0", "0.1"),
        ("train.batch_size=0", "`train.batch_size` = 0: must be at least 1", "1 or more"),
        ("train.accumulation=100000000", "`train.batch_size` = 16", "train.accumulation lower"),
        ("train.steps=0", "`train.steps` = 0", "1 or more"),
        ("train.loss_scale=1000", "`train.loss_scale` = 1000.0: must be 0 or a power of two", "65536"),
        ("train.master_weights=false", "`train.master_weights` = false", "f16 or bf16"),
        (
            "train.patience=3 train.eval_interval=0",
            "`train.patience` = 3: early stopping needs evaluations",
            "250",
        ),
        ("train.name=a/b", "`train.name` = a/b: must be the name of one folder", "without slashes"),
    ] {
        let mut config = Config::default();
        pairs.split(' ').for_each(|pair| config.set_pair(pair).unwrap());
        let error = config.validate().unwrap_err();
        assert_eq!(error.kind, crate::ErrorKind::Argument);
        assert!(error.message.contains(field) && error.message.contains(fix), "{pairs}: {}", error.message);
        assert_eq!(error.message.lines().count(), 1, "{pairs}: {}", error.message);
    }
}

#[test]
fn the_configurations_that_ship_are_valid_and_are_what_they_claim() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../../configs/");
    let char_level = Config::load(format!("{folder}shakespeare-char.toml")).unwrap();
    char_level.validate().unwrap();
    // nanoGPT's README: `python train.py config/train_shakespeare_char.py --device=cpu ... --block_size=64
    // --batch_size=12 --n_layer=4 --n_head=4 --n_embd=128 --max_iters=2000 --lr_decay_iters=2000 --dropout=0.0`.
    let model = &char_level.model;
    assert_eq!((model.layers, model.heads, model.dim, model.ff, model.seq), (4, 4, 128, 512, 64));
    assert_eq!((model.bias, model.tied, model.feed_forward), (false, true, FeedForward::Gelu));
    assert_eq!(
        (char_level.train.batch_size, char_level.train.steps, char_level.optim.warmup),
        (12, 2000, 100)
    );
    assert_eq!(
        (char_level.optim.min_lr, char_level.optim.beta2, char_level.optim.decay_min_rank),
        (1e-4, 0.99, 2)
    );
    let mut literal = Config::load(format!("{folder}nanogpt-cpu.toml")).unwrap();
    assert_eq!(literal.optim.lr, 1e-3);
    (literal.optim.lr, literal.train.name) = (char_level.optim.lr, char_level.train.name.clone());
    assert_eq!(literal, char_level, "they differ in the learning rate only");
    let bpe = Config::load(format!("{folder}shakespeare-bpe.toml")).unwrap();
    bpe.validate().unwrap();
    let mut same = bpe.clone();
    same.train.name = Config::default().train.name;
    assert_eq!(same, Config::default(), "the demo's model is the default");
}
