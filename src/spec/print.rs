//! A job's canonical form: the line that means it, and nothing beyond.
//!
//! The action comes first, then the regions, then the words in the order of the table; defaults are left out; positions
//! are sectors without units. Two jobs that mean the same have the same line, and `parse` gives the job back.

use std::os::unix::ffi::OsStrExt;

use super::keys::{Field, words};
use super::{RegionSpec, Spec, quote};

impl Spec {
    /// The line for it, without a newline. Bytes, because a path may be any bytes.
    pub fn to_line(&self) -> Vec<u8> {
        let mut out = Vec::new();
        for word in words() {
            match word.field {
                Field::From => self.from.iter().for_each(|region| print_region(word.name, region, &mut out)),
                Field::To => self.to.iter().for_each(|region| print_region(word.name, region, &mut out)),
                Field::Path { get, .. } => {
                    if let Some(path) = get(self) {
                        separate(&mut out);
                        out.extend_from_slice(format!("{}=", word.name).as_bytes());
                        quote::quote(path.as_bytes(), &mut out);
                    }
                }
                _ => {
                    if let Some(text) = word.said(self) {
                        separate(&mut out);
                        out.extend_from_slice(text.as_bytes());
                    }
                }
            }
        }
        out
    }
}

fn print_region(name: &str, region: &RegionSpec, out: &mut Vec<u8>) {
    separate(out);
    out.extend_from_slice(name.as_bytes());
    out.push(b'=');
    quote::quote(region.path.as_bytes(), out);
    match region.count {
        Some(count) => out.extend_from_slice(format!(",{},{count}", region.sector).as_bytes()),
        None if region.sector.is_zero() => {}
        None => out.extend_from_slice(format!(",{}", region.sector).as_bytes()),
    }
}

fn separate(out: &mut Vec<u8>) {
    if !out.is_empty() {
        out.push(b' ');
    }
}
