//! Flink's configuration: what is written is read as the same, whatever stands in it.

use crate::flink::config::{Configuration, parse, render};

pub fn run(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    // Keys and values, separated by what neither contains.
    let pairs = text.split('\u{1}').map(|pair| pair.split_once('\u{2}').unwrap_or((pair, "")));
    let configuration: Configuration = pairs.map(|(key, value)| (key.to_owned(), value.to_owned())).collect();
    // A key of YAML has at most 1024 characters, written.
    if configuration.keys().all(|key| key.chars().count() <= 150) {
        let written = render(&configuration);
        assert_eq!(written.lines().count(), configuration.len(), "{written:?}");
        assert_eq!(parse(&written).expect("what is written is read"), configuration, "{written:?}");
    }
    // A file that somebody has edited.
    if let Ok(read) = parse(&text) {
        let _ = render(&read);
    }
}
