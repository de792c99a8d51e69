//! TensorBoard event files: TFRecord frames (length, masked CRC-32C, data, masked CRC-32C) around protobuf `Event`
//! messages. Only what scalars and texts need of `tensorflow/core/util/event.proto` and `summary.proto` is encoded.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use crate::error::{Error, Result};

/// Writes one event file in a run's folder, each event on disk at once.
#[derive(Debug)]
pub struct EventWriter {
    path: PathBuf,
    file: File,
}

impl EventWriter {
    /// Starts a new event file in `folder`, which is created if missing. A resumed run starts another: TensorBoard
    /// reads all of a folder as one run.
    ///
    /// # Errors
    /// The folder or the file cannot be created.
    pub fn create(folder: impl AsRef<Path>) -> Result<EventWriter> {
        let folder = folder.as_ref();
        fs::create_dir_all(folder).map_err(|e| Error::io("create the folder", folder, e))?;
        let seconds = now() as u64;
        let process = std::process::id();
        let (path, file) = (0..)
            .map(|n| folder.join(format!("events.out.tfevents.{seconds:010}.bullet.{process}.{n}")))
            .find_map(|path| match File::create_new(&path) {
                Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists => None,
                result => {
                    Some(result.map(|file| (path.clone(), file)).map_err(|e| Error::io("create", &path, e)))
                }
            })
            .expect("the numbers do not end")?;
        let mut writer = EventWriter { path, file };
        let mut event = Message::default();
        event.double(1, now());
        event.bytes(3, b"brain.Event:2"); // file_version: must be the first event
        writer.record(&event.0)?;
        Ok(writer)
    }

    /// Adds a point to the scalar series `tag`, such as `loss/train`.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn scalar(&mut self, tag: &str, step: u64, value: f32) -> Result<()> {
        self.scalars(step, &[(tag, value)])
    }

    /// Adds a point to several scalar series, in one event.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn scalars(&mut self, step: u64, values: &[(&str, f32)]) -> Result<()> {
        let mut summary = Message::default();
        for (tag, value) in values {
            let mut entry = Message::default();
            entry.bytes(1, tag.as_bytes()); // tag
            entry.float(2, *value); // simple_value
            summary.bytes(1, &entry.0); // value
        }
        self.summary(step, &summary)
    }

    /// Adds a text, shown as Markdown, such as the configuration or a generated sample.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn text(&mut self, tag: &str, step: u64, text: &str) -> Result<()> {
        const DT_STRING: u64 = 7;
        let mut tensor = Message::default();
        tensor.varint(1, DT_STRING); // dtype
        let mut dim = Message::default();
        dim.varint(1, 1); // size
        let mut shape = Message::default();
        shape.bytes(2, &dim.0); // dim
        tensor.bytes(2, &shape.0); // tensor_shape
        tensor.bytes(8, text.as_bytes()); // string_val
        let mut plugin = Message::default();
        plugin.bytes(1, b"text"); // plugin_name
        let mut metadata = Message::default();
        metadata.bytes(1, &plugin.0); // plugin_data
        let mut entry = Message::default();
        entry.bytes(1, tag.as_bytes()); // tag
        entry.bytes(8, &tensor.0); // tensor
        entry.bytes(9, &metadata.0); // metadata
        let mut summary = Message::default();
        summary.bytes(1, &entry.0); // value
        self.summary(step, &summary)
    }

    /// Where the file is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    fn summary(&mut self, step: u64, summary: &Message) -> Result<()> {
        let mut event = Message::default();
        event.double(1, now()); // wall_time
        event.varint(2, step); // step
        event.bytes(5, &summary.0); // summary
        self.record(&event.0)
    }

    fn record(&mut self, data: &[u8]) -> Result<()> {
        let length = (data.len() as u64).to_le_bytes();
        let mut frame = Vec::with_capacity(data.len() + 16);
        frame.extend_from_slice(&length);
        frame.extend_from_slice(&masked_crc(&length).to_le_bytes());
        frame.extend_from_slice(data);
        frame.extend_from_slice(&masked_crc(data).to_le_bytes());
        self.file.write_all(&frame).map_err(|e| Error::io("write the event file", &self.path, e))
    }
}

/// Seconds since 1970.
fn now() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |d| d.as_secs_f64())
}

/// CRC-32C, rotated and offset so that a checksum of data that holds checksums stays sound.
fn masked_crc(bytes: &[u8]) -> u32 {
    crc32c::crc32c(bytes).rotate_right(15).wrapping_add(0xA282_EAD8)
}

/// A protobuf message being encoded.
#[derive(Default)]
struct Message(Vec<u8>);

impl Message {
    fn key(&mut self, field: u64, wire: u64) {
        self.raw_varint(field << 3 | wire);
    }

    fn raw_varint(&mut self, mut n: u64) {
        while n >= 0x80 {
            self.0.push(n as u8 | 0x80);
            n >>= 7;
        }
        self.0.push(n as u8);
    }

    fn varint(&mut self, field: u64, n: u64) {
        self.key(field, 0);
        self.raw_varint(n);
    }

    fn double(&mut self, field: u64, x: f64) {
        self.key(field, 1);
        self.0.extend_from_slice(&x.to_le_bytes());
    }

    fn bytes(&mut self, field: u64, bytes: &[u8]) {
        self.key(field, 2);
        self.raw_varint(bytes.len() as u64);
        self.0.extend_from_slice(bytes);
    }

    fn float(&mut self, field: u64, x: f32) {
        self.key(field, 5);
        self.0.extend_from_slice(&x.to_le_bytes());
    }
}
