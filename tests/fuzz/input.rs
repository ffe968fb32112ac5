//! Makes values of an input.

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

/// The rest of an input, from which parts are taken.
pub struct Input<'a>(&'a [u8]);

impl<'a> Input<'a> {
    pub fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    /// The next byte; zero at the end.
    pub fn byte(&mut self) -> u8 {
        let Some((first, rest)) = self.0.split_first() else { return 0 };
        self.0 = rest;
        *first
    }

    /// The bytes up to the next end of a line.
    pub fn line(&mut self) -> &'a [u8] {
        let end = self.0.iter().position(|byte| *byte == b'\n');
        let (line, rest) = self.0.split_at(end.unwrap_or(self.0.len()));
        self.0 = rest.get(1..).unwrap_or_default();
        line
    }

    /// The next line as text; what is not UTF-8 in it is replaced.
    pub fn text(&mut self) -> String {
        String::from_utf8_lossy(self.line()).into_owned()
    }

    /// The next line as JSON; null if it is none.
    pub fn json(&mut self) -> Value {
        serde_json::from_slice(self.line()).unwrap_or_default()
    }

    pub fn rest(&self) -> &'a [u8] {
        self.0
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

pub fn contains(bytes: &[u8], part: &[u8]) -> bool {
    part.is_empty() || bytes.windows(part.len()).any(|window| window == part)
}

/// The value in JSON, if it is one, after it was checked that it survives being written and read.
pub fn record<T: DeserializeOwned + Serialize + PartialEq + std::fmt::Debug>(json: &[u8]) -> Option<T> {
    let read: T = serde_json::from_slice(json).ok()?;
    let written = serde_json::to_string(&read).expect("what was read is written");
    let again: T = serde_json::from_str(&written).expect("what was written is read");
    assert_eq!(again, read, "written as {written}");
    Some(read)
}
