//! Messages between gateways: only the very code of the very bytes counts.

use ring::hmac;

use crate::gateway::election::peer_messages::{MAC_DIGITS, Question, Reply, is_code, mac};
use crate::input::{Input, contains};

pub fn run(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    let code = input.text();
    let (question, reply) = (input.line(), input.rest());
    let key = hmac::Key::new(hmac::HMAC_SHA256, b"key");
    let right = mac(&key, &[question, reply]);
    assert_eq!(right.len(), MAC_DIGITS);
    assert!(is_code(&key, &right, &[question, reply]));
    assert_eq!(is_code(&key, &code, &[question, reply]), code.eq_ignore_ascii_case(&right), "{code:?}");
    assert!(!is_code(&key, &right, &[question]));
    for message in [question, reply] {
        if let Ok(question) = serde_json::from_slice::<Question>(message) {
            let written = serde_json::to_vec(&question).expect("a question is written");
            // A zero byte separates the parts under a code.
            assert!(!contains(&written, &[0]));
            let again: Question = serde_json::from_slice(&written).expect("it is read");
            assert_eq!(serde_json::to_vec(&again).expect("it is written"), written);
        }
        if let Ok(reply) = serde_json::from_slice::<Reply>(message) {
            let written = serde_json::to_vec(&reply).expect("a reply is written");
            assert!(serde_json::from_slice::<Reply>(&written).is_ok());
        }
    }
}
