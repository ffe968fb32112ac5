//! Mutates JSON as JSON, also where it stands in a string of other JSON. All else is left to libFuzzer.

use fastrand::Rng;
use serde_json::{Value, json};

/// Changes an input in place and returns its new length.
pub fn mutate(data: &mut [u8], size: usize, max_size: usize, seed: u32) -> usize {
    let mut random = Rng::with_seed(seed.into());
    let changed = if random.bool() { of_lines(&data[..size], &mut random) } else { None };
    match changed.filter(|changed| changed.len() <= max_size.min(data.len())) {
        Some(changed) => {
            data[..changed.len()].copy_from_slice(&changed);
            changed.len()
        }
        None => libfuzzer_sys::fuzzer_mutate(data, size, max_size),
    }
}

/// Changes one value of one line. JSON begins at the first bracket of a line and ends with it.
fn of_lines(input: &[u8], random: &mut Rng) -> Option<Vec<u8>> {
    let mut lines: Vec<Vec<u8>> = input.split(|byte| *byte == b'\n').map(<[u8]>::to_vec).collect();
    let begin = |line: &Vec<u8>| line.iter().position(|byte| b"{[".contains(byte));
    let mut found: Vec<(usize, usize, Value)> = Vec::new();
    for (index, line) in lines.iter().enumerate() {
        if let Some(at) = begin(line)
            && let Ok(json) = serde_json::from_slice(&line[at..])
        {
            found.push((index, at, json));
        }
    }
    if found.is_empty() {
        return None;
    }
    let (index, at, mut json) = found.swap_remove(random.usize(..found.len()));
    for _ in 0..=random.usize(..3) {
        change(&mut json, random);
    }
    lines[index].truncate(at);
    lines[index].extend(json.to_string().into_bytes());
    Some(lines.join(&b'\n'))
}

fn change(value: &mut Value, random: &mut Rng) {
    let goes_down = random.u8(..8) != 0;
    match value {
        Value::Object(fields) if goes_down && !fields.is_empty() => {
            let at = random.usize(..fields.len());
            if let Some((_, field)) = fields.iter_mut().nth(at) {
                change(field, random);
            }
        }
        Value::Array(elements) if goes_down && !elements.is_empty() => {
            let at = random.usize(..elements.len());
            change(&mut elements[at], random);
        }
        Value::String(text) if goes_down && text.starts_with(['{', '[']) => {
            if let Ok(mut inner) = serde_json::from_str::<Value>(text) {
                change(&mut inner, random);
                *text = inner.to_string();
            }
        }
        here => replace(here, random),
    }
}

fn replace(value: &mut Value, random: &mut Rng) {
    match value {
        Value::Object(fields) if random.bool() && !fields.is_empty() => {
            let key = fields.keys().nth(random.usize(..fields.len())).cloned().unwrap_or_default();
            let field = fields.remove(&key).unwrap_or_default();
            if random.bool() {
                fields.insert(string(random), field);
            }
        }
        Value::Array(elements) if random.bool() && elements.len() < 64 => {
            let copied = elements.first().cloned().unwrap_or_default();
            elements.extend([copied, other(random)]);
        }
        Value::String(text) if random.bool() => match random.u8(..3) {
            0 => text.push_str(&string(random)),
            1 => *text = text.chars().take(random.usize(..text.len() + 1)).collect(),
            _ => *text = string(random),
        },
        Value::Number(_) if random.bool() => *value = number(random),
        value => *value = other(random),
    }
}

fn other(random: &mut Rng) -> Value {
    match random.u8(..7) {
        0 => Value::Null,
        1 => json!({}),
        2 => json!([]),
        3 => json!(random.bool()),
        4 => json!([{ "name": string(random) }]),
        5 => number(random),
        _ => string(random).into(),
    }
}

/// Numbers at which types end.
fn number(random: &mut Rng) -> Value {
    let all =
        [0, 1, 99, 1 << 31, (1 << 31) - 1, 1 << 32, (1 << 53) + 1, i64::MAX as u64, 1 << 63, u64::MAX - 1, u64::MAX];
    match random.u8(..4) {
        0 => json!(-1),
        1 => json!(i64::MIN),
        _ => json!(all[random.usize(..all.len())]),
    }
}

fn string(random: &mut Rng) -> String {
    let all = [
        "",
        "0",
        "-1",
        "18446744073709551615",
        "9223372036854775807",
        "x",
        "demo",
        "a/b",
        "a: b",
        "\u{2028}\u{7f}",
        "é€😀",
        "0000000000000000000000000000000a",
        "0000000000000000000000000000000b",
        "2026-01-01T00:00:00Z",
        "9999-12-30T22:00:00Z",
        "name",
        "spec",
        "status",
        "metadata",
        "null",
        "{}",
        "[]",
    ];
    all[random.usize(..all.len())].to_owned()
}
