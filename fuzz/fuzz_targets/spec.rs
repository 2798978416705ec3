//! Writes to `jobs/new`: any bytes are cut into lines, and each line is a job or an error whose caret stands within it.
//! What is a job is the same job when it is printed and parsed again.
//!
//! The first byte says where the write is cut into two.
#![no_main]

use kcopyfs::spec::{self, LineBuffer, Place};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Some((first, data)) = data.split_first() else { return };
    let (one, two) = data.split_at(data.len() * usize::from(*first) / 256);
    let mut buffer = LineBuffer::new();
    for write in [one, two] {
        let Ok(lines) = buffer.feed(write) else { continue };
        for line in lines.iter().filter(|line| !spec::is_blank(line)) {
            look_at(line);
        }
    }
    assert!(buffer.pending().is_none_or(|line| line.len() <= spec::MAX_LINE && !line.contains(&b'\n')));
    look_at(data);
});

fn look_at(line: &[u8]) {
    match spec::parse(line) {
        Ok(parsed) => {
            for place in [Place::Line, Place::From, Place::To(0), Place::Word("name")] {
                assert!(line.get(parsed.spans.of(place)).is_some(), "a part of the line");
            }
            let printed = parsed.spec.to_line();
            let again = spec::parse(&printed).expect("what was printed is parsed");
            assert_eq!(again.spec, parsed.spec);
            assert_eq!(again.spec.to_line(), printed);
        }
        Err(refused) => {
            assert!(refused.span.start <= refused.span.end && refused.span.end <= line.len());
            let text = refused.to_string();
            assert!(!text.is_empty() && text.len() < 1000 && !text.contains(char::is_control), "{text:?}");
        }
    }
}
