//! `bullet eval`, `info`, `convert` and `devices`.

use crate::run::{Place, TINY};

#[test]
fn eval_measures_the_validation_part_or_a_text() {
    let place = Place::new("eval");
    place.ok(&format!("train --data text.txt --out run {TINY} --steps 20 -q"));
    let report = place.json("eval run/last.bullet");
    let trained = place.json("train --resume run --steps 21 -q");
    let after = place.json("eval run/last.bullet");
    // The report at the end of a run is of the same model on the same text.
    let (a, b) = (after["loss"].as_f64().unwrap(), trained["validation"]["loss"].as_f64().unwrap());
    assert!((a - b).abs() < 1e-5, "{a} {b}");
    let (loss, bits) = (report["loss"].as_f64().unwrap(), report["bits_per_byte"].as_f64().unwrap());
    assert!((report["perplexity"].as_f64().unwrap() - loss.exp()).abs() < 1e-9);
    // One token a byte: bits per byte are the loss in bits.
    assert!((bits - loss / std::f64::consts::LN_2).abs() < 1e-9);
    let whole = place.json("eval run --data text.txt --batch-size 7");
    assert_eq!(whole["bytes"], std::fs::metadata(place.path("text.txt")).unwrap().len());
    std::fs::write(place.path("other.txt"), "ÄÖ the cat").unwrap();
    let said = place.run("eval run --data other.txt");
    assert!(said.err.contains("'Ä' (U+00C4) at position 0"), "{}", said.err);
    assert!(said.out.contains("bits per byte"), "{}", said.out);
}

#[test]
fn info_shows_settings_tensors_and_checksums() {
    let place = Place::new("info");
    place.trained("a", 3);
    let shown = place.ok("info runs/a --verify");
    for words in
        ["every byte verified", "dim = 16", "char, ", "step = 3", "model.tok_embedding.weight", "f32"]
    {
        assert!(shown.contains(words), "no {words:?} in {shown}");
    }
    let info = place.json("info runs/a");
    let tensor = &info["tensors"][0];
    let file = bullet_nn::format::BulletFile::open(place.path("runs/a/best.bullet")).unwrap();
    let crc = file.checksum(tensor["name"].as_str().unwrap()).unwrap();
    assert_eq!(tensor["crc32c"], format!("{crc:08x}"));
    let mut bytes = std::fs::read(place.path("runs/a/best.bullet")).unwrap();
    let last = bytes.len() - 1;
    bytes[last] ^= 1;
    std::fs::write(place.path("damaged.bullet"), bytes).unwrap();
    let said = place.run("info damaged.bullet --verify");
    assert_eq!(said.code, Some(1));
    assert!(said.err.contains("is damaged"), "{}", said.err);
}

#[test]
fn conversion_there_and_back_changes_no_byte() {
    let place = Place::new("convert");
    place.trained("a", 3);
    let report = place.json("convert runs/a m.safetensors");
    assert_eq!(report["source"], "runs/a/best.bullet");
    assert!(report["tensors"].as_u64().unwrap() > 40);
    assert!(place.ok("convert m.safetensors back.bullet").contains("wrote back.bullet"));
    let read = |name: &str| std::fs::read(place.path(name)).unwrap();
    assert_eq!(read("runs/a/best.bullet"), read("back.bullet"));
    assert_eq!(place.json("info m.safetensors")["format"], "safetensors");
    let said = place.run("convert m.safetensors m.onnx");
    assert_eq!(said.code, Some(2));
    assert!(said.err.contains(".bullet or .safetensors"), "{}", said.err);
    let said = place.run("generate m.safetensors");
    assert!(said.err.contains("bullet convert"), "{}", said.err);
}

#[test]
fn files_without_tensors_are_not_converted() {
    let place = Place::new("no-tensors");
    let write = |name: &str, bytes: &[u8]| std::fs::write(place.path(name), bytes).unwrap();
    write("empty.safetensors", b"");
    write("tiny.safetensors", b"\x02\0\0");
    write("none.safetensors", b"\x02\0\0\0\0\0\0\0{}");
    for (name, words) in [
        ("empty.safetensors", "neither a .bullet nor a .safetensors file: the file is empty"),
        ("tiny.safetensors", "neither a .bullet nor a .safetensors file: its first bytes, 02 00 00"),
        ("none.safetensors", "holds no tensors"),
    ] {
        let said = place.run(&format!("convert {name} out.bullet"));
        assert_eq!((said.code, said.out.as_str()), (Some(1), ""), "{name}");
        assert!(said.err.contains(words), "{name}: {}", said.err);
        assert!(!place.path("out.bullet").exists());
    }
}

#[test]
fn devices_tell_what_computes() {
    let place = Place::new("devices");
    let device = &place.json("devices --threads 2")["devices"][0];
    assert_eq!((&device["device"], &device["threads"]), (&"cpu".into(), &2.into()));
    assert!(device["isas"].as_array().unwrap().contains(&device["isa"]));
    let shown = place.ok("devices");
    assert!(shown.contains("cores") && shown.contains("\ncuda"), "{shown}");
}

#[test]
fn the_kernel_cache_is_shown() {
    let place = Place::new("cache");
    let cached = |json: &str| {
        let command = format!("devices --cache{json}");
        let said = place.command(&command).env("BULLET_CACHE_DIR", place.path("kernels")).output().unwrap();
        String::from_utf8(said.stdout).unwrap()
    };
    let report: serde_json::Value = serde_json::from_str(&cached(" --json")).unwrap();
    assert_eq!((&report["cache"]["entries"], &report["cache"]["hits"]), (&0.into(), &0.into()));
    assert!(cached("").contains("kernels") && cached("").contains("misses    0"));
    assert!(cached("").contains("products  0 measured") && report["products"] == serde_json::json!([]));
    let off = place.command("devices --cache").env("BULLET_CACHE", "0").output().unwrap();
    assert!(String::from_utf8_lossy(&off.stdout).contains("BULLET_CACHE=0"));
}

#[test]
fn help_and_version() {
    let place = Place::new("help");
    assert!(place.ok("--version").starts_with("bullet "));
    let help = place.ok("--help");
    for command in ["demo", "train", "generate", "eval", "info", "devices", "convert", "compile"] {
        assert!(help.contains(&format!("\n  {command} ")), "no {command} in {help}");
        assert!(place.ok(&format!("{command} --help")).contains("Usage:"));
    }
    assert_eq!(place.run("").code, Some(2));
    assert_eq!(place.run("trian").code, Some(2));
}
