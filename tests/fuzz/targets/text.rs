//! Texts: quantities, durations, ids, states, logs of programs that ended, command lines, messages of the API server.

use crate::cluster::{causes, crash, operators, quantity};
use crate::flink::entry_point::main_class;
use crate::flink::job_id::JobId;
use crate::flink::job_state::FlinkState;
use crate::flink::result::cause_of;
use crate::ledger::jobs::RecordedState;

pub fn run(bytes: &[u8]) {
    if let Some(class) = main_class(bytes) {
        // What is no UTF-8 is replaced.
        let lossy = String::from_utf8_lossy(bytes);
        assert!(lossy.contains(&class) || lossy.replace('/', ".").contains(&class));
        assert!(!class.contains('\0'));
    }
    let text = String::from_utf8_lossy(bytes);
    for line in text.lines().take(8) {
        word(line);
    }
    word(&text);
    let cause = cause_of(&text);
    assert!(cause.chars().count() <= 500);
    let sentence = crash::sentence(&text);
    assert!(!sentence.contains('\n'), "{sentence:?}");
    assert!(sentence.len() <= text.len() + 64, "a sentence that is longer than the log");
    assert!(crash::tail(&text).chars().count() <= 501);
    assert!(!causes::refused_template("spec.jobManager.podTemplate", &text).message.is_empty());
}

fn word(text: &str) {
    if let Some(bytes) = quantity::bytes(text) {
        assert_eq!(quantity::bytes(&format!("+{text}")), (!text.starts_with('+')).then_some(bytes), "{text}");
    }
    if let Some(job) = JobId::of(text) {
        assert!(job == *text && JobId::from_number(u128::from_str_radix(text, 16).expect("digits")) == job);
    }
    assert_eq!(FlinkState::from(text).as_str(), text);
    assert_eq!(RecordedState::from(text).as_str(), text);
    let _ = humantime::parse_duration(text);
    if let Some(deployment) = operators::deployment_of(text) {
        assert!(text.starts_with(&format!("{deployment}-")));
    }
    let _ = operators::is_of_deployment(text, "flinkha-operator");
}
