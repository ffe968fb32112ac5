//! Reads a list of the API server object by object, as it comes: a list of any size takes the memory of its largest
//! object. It is one answer to one request, so all objects are of the same moment. Those of several pages are so only
//! while the API server keeps that moment.

use std::pin::pin;

use anyhow::Context;
use futures::AsyncBufReadExt;
use http::Request;
use kube::Client;
use serde::de::DeserializeOwned;

/// Number of brackets that are open inside of an object of a list: those of the list, of its items, and its own.
const OBJECT: usize = 3;

/// Sends a request for a list, and passes on each object.
///
/// # Errors
/// When the request fails, an object cannot be read, or the answer is not complete: what was passed on is not all then.
pub async fn for_each<T: DeserializeOwned>(
    client: &Client,
    request: Request<Vec<u8>>,
    mut take: impl FnMut(T),
) -> anyhow::Result<()> {
    let mut body = pin!(client.request_stream(request).await?);
    let mut items = Items::default();
    loop {
        let bytes = body.fill_buf().await.context("the answer was interrupted")?;
        if bytes.is_empty() {
            break;
        }
        let length = bytes.len();
        items.read(bytes, |object| serde_json::from_slice(object).map(&mut take))?;
        body.consume_unpin(length);
    }
    anyhow::ensure!(items.is_complete(), "the answer ended before the list did");
    Ok(())
}

/// Splits the JSON of a list into that of its objects.
#[derive(Default)]
struct Items {
    /// Number of open brackets.
    depth: usize,
    /// The array of the list is open, and not one inside of an object.
    in_items: bool,
    in_string: bool,
    escaped: bool,
    /// The object that is not complete yet.
    object: Vec<u8>,
    /// The list itself has been closed.
    ended: bool,
}

impl Items {
    /// Reads the next bytes of the answer, and passes on each object that they complete.
    fn read<E>(&mut self, bytes: &[u8], mut take: impl FnMut(&[u8]) -> Result<(), E>) -> Result<(), E> {
        // Where the object that is not complete begins in these bytes.
        let mut begin = 0;
        for (index, byte) in bytes.iter().enumerate() {
            if self.in_string {
                match byte {
                    _ if self.escaped => self.escaped = false,
                    b'\\' => self.escaped = true,
                    b'"' => self.in_string = false,
                    _ => {}
                }
                continue;
            }
            match byte {
                b'"' => self.in_string = true,
                b'{' | b'[' => {
                    self.depth += 1;
                    if self.depth == OBJECT - 1 {
                        self.in_items = *byte == b'[';
                    } else if self.depth == OBJECT {
                        begin = index;
                    }
                }
                b'}' | b']' => {
                    if self.in_items && self.depth == OBJECT {
                        self.object.extend_from_slice(&bytes[begin..=index]);
                        take(&self.object)?;
                        self.object.clear();
                    }
                    self.depth = self.depth.saturating_sub(1);
                    self.ended |= self.depth == 0;
                }
                _ => {}
            }
        }
        if self.in_items && self.depth >= OBJECT {
            self.object.extend_from_slice(&bytes[begin..]);
        }
        Ok(())
    }

    fn is_complete(&self) -> bool {
        self.ended && self.depth == 0
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;

    /// Reads a list in pieces of these lengths, in turn. `None` if it is not complete.
    fn read(text: &str, lengths: &[usize]) -> Option<Vec<Value>> {
        let (mut items, mut found, mut rest) = (Items::default(), Vec::new(), text.as_bytes());
        for length in lengths.iter().cycle() {
            let (piece, left) = rest.split_at((*length).clamp(1, rest.len().max(1)).min(rest.len()));
            items.read(piece, |object| serde_json::from_slice(object).map(|one| found.push(one))).ok()?;
            rest = left;
            if rest.is_empty() {
                break;
            }
        }
        items.is_complete().then_some(found)
    }

    fn list(items: &Value) -> Value {
        let metadata = json!({ "resourceVersion": "7", "other": { "a": [{}] } });
        json!({ "kind": "ConfigMapList", "apiVersion": "v1", "metadata": metadata, "items": items })
    }

    #[test]
    fn the_objects_of_a_list_are_found_however_it_is_cut() {
        let objects = json!([
            { "metadata": { "name": "a", "annotations": { "b": "}]\"\\" } }, "data": { "{[": "\u{e9}\u{1f600}\\" } },
            {},
            { "list": [{ "x": [] }, [1, 2]] },
        ]);
        for length in 1..60 {
            assert_eq!(read(&list(&objects).to_string(), &[length]).as_ref(), objects.as_array(), "{length}");
            assert_eq!(read(&format!("{:#}\n", list(&objects)), &[length]).as_ref(), objects.as_array(), "{length}");
        }
        for none in [json!([]), Value::Null] {
            assert_eq!(read(&list(&none).to_string(), &[7]), Some(Vec::new()));
        }
    }

    #[test]
    fn a_list_that_breaks_off_is_not_complete() {
        let text = list(&json!([{ "a": "}]}" }, { "b": {} }])).to_string();
        for end in 0..text.len() {
            assert_eq!(read(&text[..end], &[5]), None, "{}", &text[..end]);
        }
    }

    proptest! {
        #[test]
        fn any_texts_and_any_cuts_give_the_same_objects(
            texts in prop::collection::vec((".*", ".*"), 0..5),
            lengths in prop::collection::vec(1_usize..40, 1..8),
        ) {
            let objects = texts.iter().map(|(key, value)| json!({ "data": { key: value }, key: [value] }));
            let objects: Vec<Value> = objects.collect();
            let text = list(&json!(objects)).to_string();
            prop_assert_eq!(read(&text, &lengths), Some(objects));
        }

        #[test]
        fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..60)) {
            let mut items = Items::default();
            let _ = items.read(&bytes, |_| Ok::<_, ()>(()));
        }
    }
}
