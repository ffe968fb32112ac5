//! Makes text that is safe on a terminal. What the plugin shows was written by others: whoever may write a pod's
//! message or the name of a job must not move the cursor, change colours or reverse the direction of the text of
//! whoever reads it.

use serde::Serialize;
use serde_json::Value;

/// Characters of a message that a table or a line shows; `-o yaml` shows all of it.
const LONGEST: usize = 1500;

/// Whether a terminal acts on the character, or shows nothing for it: controls (C0, DEL, C1), directions of text
/// (Unicode's bidirectional controls), and characters without width.
fn acts(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}')
        || matches!(c, '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}')
}

/// Text on one line, in which nothing acts on a terminal. White space becomes one space; other characters that act are
/// shown as `\u{1b}`.
pub fn plain(text: &str) -> String {
    let mut shown = String::new();
    let mut characters = 0;
    for word in text.split_whitespace() {
        if !shown.is_empty() {
            shown.push(' ');
        }
        for c in word.chars() {
            characters += 1;
            if characters > LONGEST {
                shown.push_str("… (-o yaml shows all)");
                return shown;
            }
            show(c, &mut shown);
        }
    }
    shown
}

/// The same for a line of a log, which is neither shortened nor are its spaces changed.
pub fn plain_line(line: &str) -> String {
    let mut shown = String::with_capacity(line.len());
    line.chars().for_each(|c| if c == '\t' { shown.push(c) } else { show(c, &mut shown) });
    shown
}

fn show(c: char, shown: &mut String) {
    if acts(c) {
        shown.extend(c.escape_unicode());
    } else {
        shown.push(c);
    }
}

/// JSON on several lines. A character that acts is written as an escape sequence of JSON, so that nothing is lost.
pub fn json(value: &impl Serialize) -> String {
    let text = serde_json::to_string_pretty(value).unwrap_or_default();
    let mut shown = String::with_capacity(text.len() + 1);
    for c in text.chars() {
        // Outside of strings JSON has no such character but the end of a line.
        if acts(c) && c != '\n' {
            let mut units = [0; 2];
            c.encode_utf16(&mut units).iter().for_each(|unit| shown.push_str(&format!("\\u{unit:04x}")));
        } else {
            shown.push(c);
        }
    }
    shown.push('\n');
    shown
}

/// YAML. Text in it may have several lines; another character that acts is shown as `\u{1b}`.
pub fn yaml(value: &impl Serialize) -> String {
    let mut value = serde_json::to_value(value).unwrap_or_default();
    clean(&mut value);
    serde_yaml::to_string(&value).unwrap_or_default()
}

fn clean(value: &mut Value) {
    match value {
        Value::String(text) if text.chars().any(|c| acts(c) && c != '\n') => *text = plain_lines(text),
        Value::Array(values) => values.iter_mut().for_each(clean),
        Value::Object(fields) => {
            let cleaned = std::mem::take(fields).into_iter().map(|(key, mut value)| {
                clean(&mut value);
                (plain(&key), value)
            });
            fields.extend(cleaned);
        }
        _ => {}
    }
}

fn plain_lines(text: &str) -> String {
    text.split('\n').map(plain_line).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json as value;

    use super::*;

    /// Sets the title of the window, clears the screen in C0 and in C1, and reverses the direction.
    const HOSTILE: &str = "a\u{1b}]0;x\u{7}\u{1b}[2Jb\u{9b}2Jc\r\u{202e}d\u{e0041}";

    #[test]
    fn what_acts_on_a_terminal_is_shown_and_not_sent() {
        assert_eq!(
            plain(HOSTILE),
            "a\\u{1b}]0;x\\u{7}\\u{1b}[2Jb\\u{9b}2Jc \\u{202e}d\\u{e0041}",
            "a carriage return is white space"
        );
        assert_eq!(plain(" one\n\ttwo  three "), "one two three");
        assert_eq!(plain("Straße 東京"), "Straße 東京");
        assert_eq!(plain_line("a\tb  c\u{1b}[1m"), "a\tb  c\\u{1b}[1m");
    }

    #[test]
    fn a_message_of_any_length_stays_on_the_screen() {
        let long = plain(&"x".repeat(100_000));
        assert!(long.chars().count() < LONGEST + 40 && long.ends_with("(-o yaml shows all)"), "{}", long.len());
    }

    #[test]
    fn json_loses_nothing_and_yaml_keeps_lines() {
        let object = value!({ "message": HOSTILE, "lines": "a\nb" });
        let text = json(&object);
        assert!(text.chars().all(|c| c == '\n' || !acts(c)), "{text:?}");
        assert_eq!(serde_json::from_str::<Value>(&text).expect("JSON"), object);
        let text = yaml(&object);
        assert!(text.chars().all(|c| c == '\n' || !acts(c)), "{text:?}");
        let read: Value = serde_yaml::from_str(&text).expect("YAML");
        assert_eq!(read["lines"], "a\nb");
        assert!(read["message"].as_str().is_some_and(|text| text.contains("\\u{9b}2J")), "{read}");
    }

    proptest! {
        #[test]
        fn nothing_that_acts_comes_through(characters in proptest::collection::vec(any::<char>(), 0..64)) {
            let text: String = characters.into_iter().collect();
            let object = value!({ &text: [&text] });
            for shown in [plain(&text), json(&object), yaml(&object), plain_line(&text).replace('\t', "")] {
                prop_assert!(shown.chars().all(|c| c == '\n' || !acts(c)), "{:?}", shown);
            }
            prop_assert!(!plain(&text).contains('\n'));
            prop_assert_eq!(serde_json::from_str::<Value>(&json(&object)).ok(), Some(object));
        }
    }
}
