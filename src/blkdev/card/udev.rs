//! What udev has found out about a device, as its database keeps it.

use std::collections::HashMap;
use std::fs;
use std::path::Path;

/// The properties of a device.
#[derive(Debug, Default)]
pub(super) struct Udev(HashMap<String, String>);

impl Udev {
    /// Those of the block device with that number, `MAJOR:MINOR`; none where udev does not run.
    pub(super) fn read(database: &Path, number: &str) -> Self {
        Self::parse(&fs::read(database.join(format!("b{number}"))).unwrap_or_default())
    }

    /// `E:KEY=VALUE`, a line each, among others.
    fn parse(text: &[u8]) -> Self {
        let lines = text.split(|byte| *byte == b'\n').filter_map(|line| line.strip_prefix(b"E:"));
        let pair = |line: &[u8]| {
            let line = String::from_utf8_lossy(line).into_owned();
            let (key, value) = line.split_once('=')?;
            Some((key.to_owned(), decode(value)))
        };
        Self(lines.filter_map(pair).collect())
    }

    /// A property.
    pub(super) fn get(&self, key: &str) -> Option<&str> {
        self.0.get(key).map(String::as_str)
    }
}

/// A value in which udev wrote some bytes as `\xHH`.
fn decode(value: &str) -> String {
    let mut parts = value.split("\\x");
    let mut bytes = parts.next().unwrap_or_default().as_bytes().to_vec();
    for part in parts {
        if let Some(byte) = part.get(..2).and_then(|digits| u8::from_str_radix(digits, 16).ok()) {
            bytes.push(byte);
            bytes.extend_from_slice(&part.as_bytes()[2..]);
        } else {
            bytes.extend_from_slice(b"\\x");
            bytes.extend_from_slice(part.as_bytes());
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn properties_are_read_and_decoded() {
        let udev =
            Udev::parse(b"S:disk/by-id/x\nI:12\nE:ID_MODEL_ENC=Ultra\\x20Fit\\x0a\\xz\nE:EMPTY=\nE:no\nG:systemd\n");
        assert_eq!(udev.get("ID_MODEL_ENC"), Some("Ultra Fit\n\\xz"));
        assert_eq!((udev.get("EMPTY"), udev.get("no"), udev.get("I")), (Some(""), None, None));
    }
}
