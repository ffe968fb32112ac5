//! Defines the messages that gateways exchange, and the code that authenticates them ([`super::peers`]).

use ring::hmac;
use serde::{Deserialize, Serialize};

use crate::lease::elector::Answer;
use crate::lease::record::Member;

/// Length of HMAC-SHA-256 in hex.
pub const MAC_DIGITS: usize = 64;

/// A question from one gateway to another.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", rename_all_fields = "camelCase")]
pub enum Question {
    /// Do not take the Lease of this term for `millis`. Terms rise, and `asked` rises within a term, so nobody can
    /// replay a question.
    ///
    /// `all_run`: all jobs run since the election. It decides nothing in the election; former versions do not say it.
    Promise {
        cluster: String,
        to: String,
        term: String,
        millis: u64,
        asked: u64,
        #[serde(default)]
        all_run: bool,
    },
    /// List me as a member.
    Join { cluster: String, member: Member },
}

#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Reply {
    Promise(Answer),
    Joined,
}

/// Computes the code of a question, or of a question and its reply. A zero byte separates them; JSON contains none.
pub fn mac(key: &hmac::Key, parts: &[&[u8]]) -> String {
    hmac::sign(key, &parts.join(&0)).as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Is the text the code of these parts? Compares in constant time.
pub fn is_code(key: &hmac::Key, text: &str, parts: &[&[u8]]) -> bool {
    // `from_str_radix` takes a sign, too.
    let is_hex = |digits: &&str| digits.bytes().all(|digit| digit.is_ascii_hexdigit());
    let digit = |at: usize| text.get(at..at + 2).filter(is_hex).and_then(|digits| u8::from_str_radix(digits, 16).ok());
    let sent: Option<Vec<u8>> = (0..text.len()).step_by(2).map(digit).collect();
    sent.is_some_and(|sent| hmac::verify(key, &parts.join(&0), &sent).is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reply_is_authentic_only_beside_its_question_and_under_the_same_key() {
        let key = hmac::Key::new(hmac::HMAC_SHA256, b"a");
        let code = mac(&key, &[b"q", b"r"]);
        assert_eq!(code.len(), MAC_DIGITS);
        assert!(is_code(&key, &code, &[b"q", b"r"]));
        assert!(!is_code(&key, &code, &[b"other", b"r"]));
        assert!(!is_code(&key, &code, &[b"r"]));
        assert!(!is_code(&hmac::Key::new(hmac::HMAC_SHA256, b"b"), &code, &[b"q", b"r"]));
        assert!(!is_code(&key, "", &[b"q", b"r"]));
        let with_zero = (0..).map(|n: u32| n.to_string()).find(|part| mac(&key, &[part.as_bytes()]).starts_with('0'));
        let part = with_zero.unwrap_or_default();
        let signed = mac(&key, &[part.as_bytes()]).replacen('0', "+", 1);
        assert!(!is_code(&key, &signed, &[part.as_bytes()]), "a sign is no digit");
    }
}
