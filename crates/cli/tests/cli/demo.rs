//! `bullet demo`.

use crate::run::Place;

#[test]
fn the_demo_leaves_a_model_that_loads_and_writes() {
    let place = Place::new("demo");
    let said = place.run("demo --steps 2");
    assert_eq!(said.code, Some(0), "{}", said.err);
    assert!(
        said.err.contains("thread") && said.err.contains("bytes") || said.err.contains("MB"),
        "{}",
        said.err
    );
    for words in
        ["before training", "after 2 steps", "ROMEO:", "validation loss", "bits per byte", "demo.bullet"]
    {
        assert!(said.out.contains(words), "no {words:?} in {}", said.out);
    }
    let info = place.json("info demo.bullet --verify");
    let model = &info["model"];
    for (key, value) in
        [("dim", 128), ("layers", 4), ("heads", 4), ("ff", 256), ("max_seq", 64), ("vocab", 3000)]
    {
        assert_eq!(model[key], value, "{key}");
    }
    assert!(
        info["training"].is_null()
            && info["tensors"]
                .as_array()
                .unwrap()
                .iter()
                .all(|t| { t["name"].as_str().unwrap().starts_with("model.") })
    );
    assert!(!place.ok("generate demo.bullet -n 5 --seed 1 --prompt KING").is_empty());
}

#[test]
fn the_quick_demo_reports_to_scripts() {
    let place = Place::new("quick");
    let report = place.json("demo --quick --out model.bullet");
    assert_eq!((&report["command"], &report["ending"]), (&"demo".into(), &"completed".into()));
    assert!(report["validation"]["bits_per_byte"].as_f64().unwrap() < 4.5);
    assert!(report["sample"].as_str().unwrap().starts_with("ROMEO:"));
    assert_eq!(report["model"], "model.bullet");
    assert!(place.path("model.bullet").exists());
}

#[test]
fn a_place_that_cannot_be_written_is_known_before_training() {
    let place = Place::new("nowhere");
    let said = place.run("demo --out no/such/folder/demo.bullet");
    assert_eq!(said.code, Some(2));
    assert!(
        said.err.contains("`--out` = no/such/folder/demo.bullet: its folder does not exist"),
        "{}",
        said.err
    );
    #[cfg(target_os = "linux")]
    {
        let said = place.run("demo --out /proc/demo.bullet");
        assert_eq!(said.code, Some(2), "{}", said.err);
        assert!(said.err.contains("/proc/demo.bullet: it cannot be written: No such file"), "{}", said.err);
    }
    assert!(!place.path("runs").exists());
}
