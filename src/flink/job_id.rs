//! Defines the type of Flink's ids of jobs and applications.

use std::borrow::Borrow;
use std::fmt::{Debug, Display, Formatter};
use std::hash::{Hash, Hasher};
use std::str::FromStr;

use serde::de::Error;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Number of digits of an id.
const LENGTH: usize = 32;

/// The id of a job or of an application: 32 lower-case hex digits (`JobID`, `ApplicationID` and `AbstractID.toString`,
/// Flink 1.15 to 2.3). Text becomes an id where it is read; text in any other format never does.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct JobId([u8; LENGTH]);

/// The text is not the id of a job or application.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("'{0}' is not an id of Flink's: 32 hex digits in lower case")]
pub struct NotAnId(String);

impl JobId {
    /// Parses an id; `None` if the text is not one.
    pub fn of(text: &str) -> Option<Self> {
        let digits: [u8; LENGTH] = text.as_bytes().try_into().ok()?;
        digits.iter().all(|digit| matches!(digit, b'0'..=b'9' | b'a'..=b'f')).then_some(Self(digits))
    }

    /// Returns the id with the digits of this number.
    pub const fn from_number(number: u128) -> Self {
        let (mut digits, mut at) = ([0; LENGTH], 0);
        while at < LENGTH {
            digits[at] = b"0123456789abcdef"[(number >> (4 * (LENGTH - 1 - at)) & 0xf) as usize];
            at += 1;
        }
        Self(digits)
    }

    pub fn as_str(&self) -> &str {
        // The bytes are ASCII digits, so the conversion never fails.
        std::str::from_utf8(&self.0).unwrap_or_default()
    }
}

impl FromStr for JobId {
    type Err = NotAnId;

    fn from_str(text: &str) -> Result<Self, NotAnId> {
        Self::of(text).ok_or_else(|| NotAnId(text.to_owned()))
    }
}

impl AsRef<str> for JobId {
    fn as_ref(&self) -> &str {
        self.as_str()
    }
}

impl Borrow<str> for JobId {
    fn borrow(&self) -> &str {
        self.as_str()
    }
}

/// Equal to the hash of the text, as [`Borrow`] requires.
impl Hash for JobId {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.as_str().hash(state);
    }
}

impl Display for JobId {
    fn fmt(&self, formatter: &mut Formatter<'_>) -> std::fmt::Result {
        formatter.pad(self.as_str())
    }
}

impl Debug for JobId {
    fn fmt(&self, formatter: &mut Formatter<'_>) -> std::fmt::Result {
        Debug::fmt(self.as_str(), formatter)
    }
}

impl PartialEq<str> for JobId {
    fn eq(&self, other: &str) -> bool {
        self.as_str() == other
    }
}

impl PartialEq<&str> for JobId {
    fn eq(&self, other: &&str) -> bool {
        self.as_str() == *other
    }
}

impl PartialEq<String> for JobId {
    fn eq(&self, other: &String) -> bool {
        self.as_str() == other
    }
}

impl Serialize for JobId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

impl<'de> Deserialize<'de> for JobId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
    }
}

/// Serializes an optional id as text, which is empty for `None`.
pub mod or_empty {
    use super::{Deserialize, Deserializer, Error, JobId, Serializer};

    /// # Errors
    /// When the format cannot hold text.
    pub fn serialize<S: Serializer>(id: &Option<JobId>, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(id.as_ref().map_or("", JobId::as_str))
    }

    /// # Errors
    /// When the text is neither empty nor an id.
    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<JobId>, D::Error> {
        match String::deserialize(deserializer)?.as_str() {
            "" => Ok(None),
            text => text.parse().map(Some).map_err(D::Error::custom),
        }
    }
}

/// Number of ids that a message names.
const LISTED: usize = 5;

/// Names ids of jobs in a message that stays short.
pub fn listed<'a>(ids: impl ExactSizeIterator<Item = &'a str>) -> String {
    let more = ids.len().saturating_sub(LISTED);
    let named = ids.take(LISTED).collect::<Vec<_>>().join(", ");
    if more > 0 { format!("{named} and {more} more") } else { named }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeSet, HashSet};

    use serde_json::json;

    use super::*;

    const TEXT: &str = "0e4519cff01b3cb1d46ceefbba31d9ae";

    #[test]
    fn a_message_names_few_of_many_jobs() {
        assert_eq!(listed(["a", "b"].into_iter()), "a, b");
        assert_eq!(listed(["a", "b", "c", "d", "e", "f", "g"].into_iter()), "a, b, c, d, e and 2 more");
    }

    #[test]
    fn an_id_is_what_flink_writes_and_nothing_else() {
        let id: JobId = TEXT.parse().expect("an id");
        assert_eq!((id.to_string().as_str(), format!("{id:?}")), (TEXT, format!("{TEXT:?}")));
        assert_eq!(json!(id), json!(TEXT));
        assert_eq!(serde_json::from_value::<JobId>(json!(TEXT)).expect("an id"), id);
        assert_eq!(JobId::from_number(0x0e45_19cf_f01b_3cb1_d46c_eefb_ba31_d9ae), id);
        for other in ["", "a", &TEXT[1..], &format!("{TEXT}0"), &TEXT.to_uppercase(), &TEXT.replace('e', "g")] {
            assert_eq!(JobId::of(other), None, "{other}");
            assert!(serde_json::from_value::<JobId>(json!(other)).is_err(), "{other}");
        }
        let error = "short".parse::<JobId>().expect_err("no id");
        assert_eq!(error.to_string(), "'short' is not an id of Flink's: 32 hex digits in lower case");
    }

    #[test]
    fn an_id_is_found_by_its_text() {
        let id: JobId = TEXT.parse().expect("an id");
        assert!(BTreeSet::from([id]).contains(TEXT) && HashSet::from([id]).contains(TEXT));
        assert!(id == *TEXT && id == TEXT);
    }

    #[test]
    fn ids_are_ordered_and_read_as_their_texts() {
        let numbers = [0, 1, 0xf, 0x10, u128::MAX >> 4, 1 << 127, 0x0123_4567_89ab_cdef_fedc_ba98_7654_3210, u128::MAX];
        for (first, second) in numbers.iter().flat_map(|first| numbers.iter().map(move |second| (*first, *second))) {
            let (one, other) = (JobId::from_number(first), JobId::from_number(second));
            assert_eq!((one.as_str(), JobId::of(one.as_str())), (format!("{first:032x}").as_str(), Some(one)));
            assert_eq!((one.cmp(&other), one.as_str().cmp(other.as_str())), (first.cmp(&second), first.cmp(&second)));
        }
    }

    #[test]
    fn no_other_byte_is_a_digit_of_an_id() {
        for byte in 0..=u8::MAX {
            let text = String::from_utf8_lossy(&[&TEXT.as_bytes()[1..], &[byte]].concat()).into_owned();
            assert_eq!(JobId::of(&text).is_some(), b"0123456789abcdef".contains(&byte), "{byte}");
        }
    }
}
