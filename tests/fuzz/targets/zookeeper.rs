//! What a server of a quorum says: frames of a session's beginning, challenges of SASL, names and data of znodes.

use std::hash::{DefaultHasher, Hash, Hasher};

use futures_executor::block_on;

use crate::flink::digest_md5::{self, Login};
use crate::flink::znodes;
use crate::flink::zookeeper_frames::{HEADER, attach, reply, session_of_response, token};
use crate::ha_data::handover;
use crate::input::{Input, contains};
use crate::world::quorum::frames::{read_frame, with_length};

const LIMIT: usize = 1024;

pub fn run(bytes: &[u8]) {
    frames(bytes);
    challenge(bytes);
    znode_data(bytes);
}

fn frames(bytes: &[u8]) {
    if let Ok(frame) = block_on(read_frame(&mut &bytes[..], LIMIT)) {
        assert!(frame.len() <= LIMIT && bytes.starts_with(&with_length(&frame)));
    }
    if let Some(session) = session_of_response(bytes) {
        assert!(session.id != 0 && session.timeout_millis > 0 && contains(bytes, &session.password));
        let request = attach(&session);
        assert_eq!(request[..HEADER], u32::try_from(request.len() - HEADER).expect("short").to_be_bytes());
        assert!(contains(&request, &session.password));
        // Id and password stand in the request as they stand in the response.
        assert!(contains(&request, &bytes[8..16]));
    }
    if let Some(reply) = reply(bytes) {
        assert!(bytes.ends_with(reply.body));
        if let Some(token) = token(reply.body) {
            assert!(contains(reply.body, token));
        }
    }
}

/// Nothing that the server says becomes a directive of its own in the answer.
fn challenge(bytes: &[u8]) {
    let login = Login { username: "fl\"ink", password: "s\\ecret", service: digest_md5::ZOOKEEPER };
    let mut input = Input::new(bytes);
    let (realm, nonce) = (input.text(), input.text());
    let quoted = |text: &str| format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""));
    let well_formed =
        format!("realm={},nonce={},qop=\"auth\",charset=utf-8,algorithm=md5-sess", quoted(&realm), quoted(&nonce));
    // The fuzzer sees with what its bytes are compared. With the proof in them, another one would be right.
    let mut hasher = DefaultHasher::new();
    bytes.hash(&mut hasher);
    let our_nonce = hasher.finish().to_string();
    for (challenge, is_well_formed) in [(bytes, false), (well_formed.as_bytes(), true)] {
        let answer = digest_md5::answer(challenge, login, &our_nonce);
        assert!(answer.is_ok() || !is_well_formed, "{well_formed:?}: {:?}", answer.err());
        let Ok(answer) = answer else { continue };
        assert!(!answer.is_known_to(challenge), "a proof that was not computed");
        let token = String::from_utf8(answer.token.clone()).expect("it was asked for in UTF-8");
        if is_well_formed {
            assert!(token.contains(&format!("realm={},nonce={},nc=", quoted(&realm), quoted(&nonce))));
        }
        let keys: Vec<String> = keys(&token);
        assert_eq!(
            keys,
            ["charset", "username", "realm", "nonce", "nc", "cnonce", "digest-uri", "response", "qop"],
            "{token}"
        );
    }
}

/// The keys of a list of directives.
fn keys(token: &str) -> Vec<String> {
    let (mut keys, mut key, mut in_key, mut in_quotes, mut escaped) = (Vec::new(), String::new(), true, false, false);
    for character in token.chars() {
        match character {
            _ if escaped => escaped = false,
            '\\' if in_quotes => escaped = true,
            '"' => in_quotes = !in_quotes,
            ',' if !in_quotes => in_key = true,
            '=' if in_key => {
                in_key = false;
                keys.push(std::mem::take(&mut key));
            }
            other if in_key => key.push(other),
            _ => {}
        }
    }
    keys
}

fn znode_data(bytes: &[u8]) {
    if let Some((mark, start)) = handover::parse_znode(bytes) {
        let mark = mark.unwrap_or_default();
        assert!(bytes.starts_with(mark.as_bytes()) && mark.matches('/').count() <= 1);
        assert!(start.is_none() || bytes.len() > mark.len());
    }
    let name = String::from_utf8_lossy(bytes);
    if let Some(sequence) = znodes::sequence(&name) {
        assert!(
            name.trim_end_matches(|digit: char| digit.is_ascii_digit()).ends_with(['-', '+']),
            "{name}: {sequence}"
        );
    }
    if let Some(job) = znodes::job_of_leader(&name) {
        assert_eq!(name, format!("job-{job}"));
    }
}
