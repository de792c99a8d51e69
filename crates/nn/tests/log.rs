//! Run logs, decoded again by decoders written here.

mod files;

use bullet_nn::log::{Curve, EventWriter, JsonlLog};
use files::Folder;
use serde_json::json;

#[test]
fn jsonl_lines_are_whole_and_flushed() {
    let folder = Folder::new();
    let path = folder.path("log.jsonl");
    let mut log = JsonlLog::create(&path).unwrap();
    for step in 0..5 {
        log.write(&json!({ "step": step, "loss": 4.0 - f64::from(step) / 3.0, "text": "a\nb" })).unwrap();
        // Without dropping the log: a crash now would lose nothing.
        assert_eq!(JsonlLog::read(&path).unwrap().len(), step as usize + 1);
    }
    assert_eq!(
        JsonlLog::read(&path).unwrap()[2],
        json!({ "step": 2, "loss": 4.0 - 2.0 / 3.0, "text": "a\nb" })
    );
}

#[test]
fn a_resumed_log_goes_on_from_its_step() {
    let folder = Folder::new();
    let path = folder.path("log.jsonl");
    let lines = "{\"event\":\"start\"}\n{\"step\":1}\n{\"step\":2}\n{\"step\":3}\n{\"step\":";
    std::fs::write(&path, lines).unwrap();
    let mut log = JsonlLog::resume(&path, 2).unwrap();
    log.write(&json!({ "step": 3, "again": true })).unwrap();
    let want = "{\"event\":\"start\"}\n{\"step\":1}\n{\"step\":2}\n{\"again\":true,\"step\":3}\n";
    assert_eq!(std::fs::read_to_string(&path).unwrap(), want);
    std::fs::write(&path, "{\"step\":1}\nnot json\n{\"step\":2}\n").unwrap();
    let e = JsonlLog::resume(&path, 2).unwrap_err();
    assert!(e.message.contains("line 2 is not JSON"), "{e}");
    JsonlLog::resume(folder.path("new.jsonl"), 0).unwrap();
}

/// Bitwise CRC-32C, from the polynomial, to check the framing without the crate that wrote it.
fn crc32c_bitwise(bytes: &[u8]) -> u32 {
    let mut crc = !0u32;
    for &b in bytes {
        crc ^= u32::from(b);
        for _ in 0..8 {
            crc = crc >> 1 ^ (0x82F6_3B78 & (crc & 1).wrapping_neg());
        }
    }
    !crc
}

fn records(mut bytes: &[u8]) -> Vec<&[u8]> {
    let check = |data: &[u8], stored: &[u8]| {
        let crc = crc32c_bitwise(data);
        let masked = crc.rotate_right(15).wrapping_add(0xa282ead8);
        assert_eq!(stored, masked.to_le_bytes());
    };
    let mut out = Vec::new();
    while !bytes.is_empty() {
        let length = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
        check(&bytes[..8], &bytes[8..12]);
        check(&bytes[12..12 + length], &bytes[12 + length..16 + length]);
        out.push(&bytes[12..12 + length]);
        bytes = &bytes[16 + length..];
    }
    out
}

#[derive(Debug, PartialEq)]
enum Field<'a> {
    Varint(u64),
    Double(f64),
    Bytes(&'a [u8]),
    Float(f32),
}

fn varint(bytes: &mut &[u8]) -> u64 {
    let mut n = 0;
    for shift in (0..).step_by(7) {
        let (&b, rest) = bytes.split_first().unwrap();
        *bytes = rest;
        n |= u64::from(b & 0x7f) << shift;
        if b < 0x80 {
            break;
        }
    }
    n
}

fn fields(mut bytes: &[u8]) -> Vec<(u64, Field<'_>)> {
    let mut out = Vec::new();
    while !bytes.is_empty() {
        let key = varint(&mut bytes);
        let length = match key & 7 {
            0 => {
                out.push((key >> 3, Field::Varint(varint(&mut bytes))));
                continue;
            }
            1 => 8,
            2 => varint(&mut bytes) as usize,
            5 => 4,
            wire => panic!("wire type {wire}"),
        };
        let (data, rest) = bytes.split_at(length);
        bytes = rest;
        let field = match key & 7 {
            1 => Field::Double(f64::from_le_bytes(data.try_into().unwrap())),
            2 => Field::Bytes(data),
            _ => Field::Float(f32::from_le_bytes(data.try_into().unwrap())),
        };
        out.push((key >> 3, field));
    }
    out
}

fn get<'a>(bytes: &'a [u8], number: u64) -> Field<'a> {
    fields(bytes).into_iter().find(|f| f.0 == number).expect("field is there").1
}

fn sub(bytes: &[u8], number: u64) -> &[u8] {
    let Field::Bytes(sub) = get(bytes, number) else { panic!("field {number} is not a message") };
    sub
}

#[test]
fn tensorboard_events_decode() {
    let folder = Folder::new();
    let mut writer = EventWriter::create(folder.path("tb")).unwrap();
    writer.scalar("loss/train", 7, 2.5).unwrap();
    writer.scalars(1 << 40, &[("a", -1.0), ("b", f32::NAN)]).unwrap();
    writer.text("sample", 9, "größe").unwrap();
    assert!(writer.path().file_name().unwrap().to_str().unwrap().starts_with("events.out.tfevents."));
    // A second run in the same second gets its own file.
    assert_ne!(EventWriter::create(folder.path("tb")).unwrap().path(), writer.path());

    let bytes = std::fs::read(writer.path()).unwrap();
    let events = records(&bytes);
    assert_eq!(events.len(), 4);
    assert_eq!(sub(events[0], 3), b"brain.Event:2");
    for event in &events {
        let Field::Double(wall) = get(event, 1) else { panic!("wall time") };
        assert!(wall > 1.7e9 && wall < 1e11, "{wall}");
    }
    assert_eq!(get(events[1], 2), Field::Varint(7));
    let value = sub(sub(events[1], 5), 1);
    assert_eq!((get(value, 1), get(value, 2)), (Field::Bytes(b"loss/train"), Field::Float(2.5)));
    assert_eq!(get(events[2], 2), Field::Varint(1 << 40));
    assert_eq!(fields(sub(events[2], 5)).len(), 2);
    let value = sub(sub(events[3], 5), 1);
    assert_eq!(sub(sub(value, 8), 8), "größe".as_bytes());
    assert_eq!(sub(sub(sub(value, 9), 1), 1), b"text");
}

/// Tags nest and close, attributes are quoted, no stray markup: enough XML to be sure that a browser draws it.
fn assert_well_formed(svg: &str) {
    let mut open = Vec::new();
    let mut rest = svg;
    while let Some(start) = rest.find('<') {
        assert!(!rest[..start].contains('>'), "stray > before {}", &rest[start..]);
        let end = start + rest[start..].find('>').expect("every tag closes");
        let tag = &rest[start + 1..end];
        assert_eq!(tag.matches('"').count() % 2, 0, "{tag}");
        if let Some(name) = tag.strip_prefix('/') {
            assert_eq!(open.pop(), Some(name));
        } else if !tag.ends_with('/') {
            open.push(tag.split(' ').next().unwrap());
        }
        rest = &rest[end + 1..];
    }
    assert!(open.is_empty(), "{open:?}");
    for (i, _) in svg.match_indices('&') {
        let known = ["&amp;", "&lt;", "&gt;", "&quot;"].iter().any(|e| svg[i..].starts_with(e));
        assert!(known, "stray & in {}", &svg[i..]);
    }
    assert!(!svg.contains("NaN") && !svg.contains("inf"), "coordinates are numbers");
}

#[test]
fn the_curve_is_valid_and_complete() {
    let decay = |n: u32| (0..=n).map(|i| (f64::from(i), 1.5 + 2.7 * (-f64::from(i) / 300.0).exp())).collect();
    let svg = Curve::losses("run <1> & \"2\"\u{1}", decay(2000), decay(10)).to_svg();
    assert_well_formed(&svg);
    for want in
        ["run &lt;1&gt; &amp; &quot;2&quot;", ">train<", ">validation<", ">step<", ">loss (nats per token)<"]
    {
        assert!(svg.contains(want), "{want}");
    }
    for tick in [">0<", ">500<", ">1000<", ">2000<", ">2.0<", ">4.0<"] {
        assert!(svg.contains(tick), "tick {tick} is missing");
    }
    assert_eq!(svg.matches("stroke-linejoin").count(), 2, "one path a series");
}

#[test]
fn odd_curves_are_valid_too() {
    let many: Vec<(f64, f64)> = (0..1_000_000).map(|i| (f64::from(i), f64::from(i % 97))).collect();
    let svg = Curve::losses("many", many, vec![]).to_svg();
    assert_well_formed(&svg);
    assert!(svg.len() < 100_000, "a long run is thinned: {} bytes", svg.len());
    for points in [
        vec![],
        vec![(0.0, 1.0)],
        vec![(5.0, 2.0), (5.0, 2.0)],
        vec![(0.0, f64::NAN), (1.0, f64::INFINITY)],
        vec![(0.0, 3.0), (1.0, f64::NAN), (2.0, 2.0), (3.0, 1.0)],
        vec![(0.0, 1e300), (1e18, -1e300)],
        vec![(0.0, f64::MAX), (1.0, f64::MIN)],
        vec![(0.0, 1e-300), (1.0, 2e-300)],
        vec![(1e15, 0.0), (1e15 + 1.0, 5e-324)],
    ] {
        let svg = Curve::losses("odd", points.clone(), points).to_svg();
        assert_well_formed(&svg);
    }
    let gap = vec![(0.0, 3.0), (1.0, 2.0), (2.0, f64::NAN), (3.0, 2.0), (4.0, 1.0)];
    let svg = Curve::losses("gap", gap, vec![]).to_svg();
    let path = svg.lines().find(|l| l.contains("stroke-linejoin")).unwrap();
    assert_eq!(path.matches('M').count(), 2, "a missing value interrupts the line: {path}");
}

#[test]
fn the_curve_is_written() {
    let folder = Folder::new();
    let curve = Curve::losses("t", vec![(0.0, 1.0), (1.0, 0.5)], vec![]);
    curve.write_svg(folder.path("loss.svg")).unwrap();
    assert_eq!(std::fs::read_to_string(folder.path("loss.svg")).unwrap(), curve.to_svg());
}
