//! Reads streams of Java's serialization (Java Object Serialization Specification, chapter 6) as far as Flink's state
//! handles need it: it walks a stream and returns the strings, or booleans, in one field of one class. It builds no
//! objects, never panics, is bounded, and stops at the first thing that it does not understand.

/// Limits of nesting, of handles, and of the input in bytes. No state handle reaches them: one has some 700 bytes.
const DEPTH: usize = 32;
const HANDLES: usize = 256;
const LENGTH: usize = 16 << 10;
/// Limit of the strings that are returned.
const FOUND: usize = 16;

const MAGIC: [u8; 4] = [0xac, 0xed, 0x00, 0x05];

/// Why the reader did not reach the end of the stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unreadable {
    #[error("it is not a stream of Java's serialisation")]
    NoStream,
    #[error("it ends too early")]
    Short,
    #[error("it holds something that is not understood")]
    Unknown,
    #[error("it is larger or deeper than a state handle can be")]
    TooLarge,
}

type Result<T> = std::result::Result<T, Unreadable>;

/// Returns the values of a field of type String in every object of a class, in the order of the stream. A boolean is
/// `true` or `false`.
///
/// # Errors
/// When the reader does not understand the first object to its end; nothing is known about the stream then.
pub fn strings(bytes: &[u8], class: &str, field: &str) -> Result<Vec<String>> {
    walk(bytes, class, field, false).map(|reader| reader.found)
}

/// Returns the values of a field of type long, int, short, byte or char in every object of a class, in the order of the
/// stream, each as an unsigned number of its own length.
///
/// # Errors
/// As [`strings`].
pub fn numbers(bytes: &[u8], class: &str, field: &str) -> Result<Vec<u64>> {
    walk(bytes, class, field, true).map(|reader| reader.numbers)
}

fn walk<'a>(bytes: &'a [u8], class: &'a str, field: &'a str, of_numbers: bool) -> Result<Reader<'a>> {
    if bytes.len() > LENGTH {
        return Err(Unreadable::TooLarge);
    }
    let rest = bytes.strip_prefix(&MAGIC).ok_or(Unreadable::NoStream)?;
    let (found, numbers) = (Vec::new(), Vec::new());
    let mut reader = Reader { rest, handles: Vec::new(), class, field, of_numbers, found, numbers };
    reader.content(0)?;
    // Flink writes nothing after the object.
    if !reader.rest.is_empty() {
        return Err(Unreadable::Unknown);
    }
    Ok(reader)
}

/// What a back-reference refers to.
#[derive(Clone, Debug)]
enum Handle {
    Class(usize),
    Text(String),
    Other,
}

/// The kind of a content element.
enum Content {
    Text(String),
    EndOfBlock,
    Other,
}

#[derive(Clone, Debug)]
struct Class {
    name: String,
    flags: u8,
    /// Type code and name of each field.
    fields: Vec<(u8, String)>,
    parent: Option<usize>,
}

struct Reader<'a> {
    rest: &'a [u8],
    handles: Vec<(Handle, Option<Class>)>,
    class: &'a str,
    field: &'a str,
    /// The field holds numbers, not strings.
    of_numbers: bool,
    found: Vec<String>,
    numbers: Vec<u64>,
}

impl<'a> Reader<'a> {
    fn take(&mut self, length: usize) -> Result<&'a [u8]> {
        let (taken, rest) = self.rest.split_at_checked(length).ok_or(Unreadable::Short)?;
        self.rest = rest;
        Ok(taken)
    }

    /// Reads a big-endian number of `length` bytes.
    fn number(&mut self, length: usize) -> Result<usize> {
        let number = self.take(length)?.iter().fold(0_u64, |number, byte| number << 8 | u64::from(*byte));
        usize::try_from(number).map_err(|_| Unreadable::TooLarge)
    }

    fn byte(&mut self) -> Result<u8> {
        Ok(self.take(1)?[0])
    }

    fn text(&mut self, length_bytes: usize) -> Result<String> {
        let length = self.number(length_bytes)?;
        // Java's modified UTF-8 differs beyond the basic plane and for NUL; no path contains either.
        String::from_utf8(self.take(length)?.to_vec()).map_err(|_| Unreadable::Unknown)
    }

    fn new_handle(&mut self, handle: Handle, class: Option<Class>) -> Result<usize> {
        if self.handles.len() >= HANDLES {
            return Err(Unreadable::TooLarge);
        }
        self.handles.push((handle, class));
        Ok(self.handles.len() - 1)
    }

    fn referred(&mut self) -> Result<Handle> {
        let index = self.number(4)?.checked_sub(0x7e_0000).ok_or(Unreadable::Unknown)?;
        self.handles.get(index).map(|(handle, _)| handle.clone()).ok_or(Unreadable::Unknown)
    }

    fn content(&mut self, depth: usize) -> Result<Content> {
        if depth > DEPTH {
            return Err(Unreadable::TooLarge);
        }
        match self.byte()? {
            0x70 => {}
            0x71 => {
                if let Handle::Text(text) = self.referred()? {
                    return Ok(Content::Text(text));
                }
            }
            0x73 => self.object(depth)?,
            0x74 => return self.string(2),
            0x7c => return self.string(8),
            0x75 => self.array(depth)?,
            0x77 => {
                let length = self.number(1)?;
                self.take(length)?;
            }
            0x7a => {
                let length = self.number(4)?;
                self.take(length)?;
            }
            0x78 => return Ok(Content::EndOfBlock),
            0x7e => {
                self.class(depth)?;
                self.new_handle(Handle::Other, None)?;
                self.content(depth + 1)?;
            }
            // No state handle contains class objects, proxies, exceptions or resets.
            _ => return Err(Unreadable::Unknown),
        }
        Ok(Content::Other)
    }

    fn string(&mut self, length_bytes: usize) -> Result<Content> {
        let text = self.text(length_bytes)?;
        self.new_handle(Handle::Text(text.clone()), None)?;
        Ok(Content::Text(text))
    }

    /// Reads a class descriptor. Returns its handle; `None` for null.
    fn class(&mut self, depth: usize) -> Result<Option<usize>> {
        if depth > DEPTH {
            return Err(Unreadable::TooLarge);
        }
        match self.byte()? {
            0x70 => Ok(None),
            0x71 => match self.referred()? {
                Handle::Class(class) => Ok(Some(class)),
                _ => Err(Unreadable::Unknown),
            },
            0x72 => {
                let name = self.text(2)?;
                self.take(8)?;
                let index = self.new_handle(Handle::Other, None)?;
                let flags = self.byte()?;
                let count = self.number(2)?;
                let mut fields = Vec::new();
                for _ in 0..count {
                    let code = self.byte()?;
                    let field = self.text(2)?;
                    if matches!(code, b'L' | b'[') && !matches!(self.content(depth + 1)?, Content::Text(_)) {
                        return Err(Unreadable::Unknown);
                    }
                    fields.push((code, field));
                }
                self.until_end_of_block(depth)?;
                let parent = self.class(depth + 1)?;
                self.handles[index] = (Handle::Class(index), Some(Class { name, flags, fields, parent }));
                Ok(Some(index))
            }
            _ => Err(Unreadable::Unknown),
        }
    }

    fn until_end_of_block(&mut self, depth: usize) -> Result<()> {
        while !matches!(self.content(depth + 1)?, Content::EndOfBlock) {}
        Ok(())
    }

    fn described(&self, index: usize) -> Result<&Class> {
        self.handles.get(index).and_then(|(_, class)| class.as_ref()).ok_or(Unreadable::Unknown)
    }

    fn object(&mut self, depth: usize) -> Result<()> {
        let class = self.class(depth + 1)?.ok_or(Unreadable::Unknown)?;
        self.new_handle(Handle::Other, None)?;
        // The values stand in this order: from the topmost class with fields down to the object's own class.
        let mut lineage = vec![self.described(class)?.clone()];
        while let Some(parent) = lineage.last().and_then(|class| class.parent) {
            if lineage.len() > DEPTH {
                return Err(Unreadable::TooLarge);
            }
            lineage.push(self.described(parent)?.clone());
        }
        for class in lineage.into_iter().rev() {
            match class.flags & 0x0f {
                // Serializable, with or without its own `writeObject`.
                0x02 => self.fields(&class, depth)?,
                0x03 => {
                    self.fields(&class, depth)?;
                    self.until_end_of_block(depth)?;
                }
                // Externalizable, written in blocks.
                0x0c => self.until_end_of_block(depth)?,
                _ => return Err(Unreadable::Unknown),
            }
        }
        Ok(())
    }

    fn fields(&mut self, class: &Class, depth: usize) -> Result<()> {
        for (code, name) in &class.fields {
            let wanted = class.name == self.class && name == self.field;
            if wanted && self.of_numbers {
                self.wanted_number(*code)?;
                continue;
            }
            match self.value(*code, depth)? {
                Some(_) if wanted && self.found.len() == FOUND => return Err(Unreadable::TooLarge),
                Some(text) if wanted => self.found.push(text),
                None if wanted => return Err(Unreadable::Unknown),
                _ => {}
            }
        }
        Ok(())
    }

    fn wanted_number(&mut self, code: u8) -> Result<()> {
        let length = match code {
            b'B' => 1,
            b'C' | b'S' => 2,
            b'I' => 4,
            b'J' => 8,
            _ => return Err(Unreadable::Unknown),
        };
        if self.numbers.len() == FOUND {
            return Err(Unreadable::TooLarge);
        }
        let bytes = self.take(length)?;
        self.numbers.push(bytes.iter().fold(0, |number, byte| number << 8 | u64::from(*byte)));
        Ok(())
    }

    /// Reads a value with this type code. Returns its text if it is a string or a boolean.
    fn value(&mut self, code: u8, depth: usize) -> Result<Option<String>> {
        match code {
            b'Z' => return Ok(Some((self.byte()? != 0).to_string())),
            b'B' => self.take(1)?,
            b'C' | b'S' => self.take(2)?,
            b'I' | b'F' => self.take(4)?,
            b'J' | b'D' => self.take(8)?,
            b'L' | b'[' => {
                return match self.content(depth + 1)? {
                    Content::Text(text) => Ok(Some(text)),
                    Content::Other => Ok(None),
                    Content::EndOfBlock => Err(Unreadable::Unknown),
                };
            }
            _ => return Err(Unreadable::Unknown),
        };
        Ok(None)
    }

    fn array(&mut self, depth: usize) -> Result<()> {
        let class = self.class(depth + 1)?.ok_or(Unreadable::Unknown)?;
        let code = *self.described(class)?.name.as_bytes().get(1).ok_or(Unreadable::Unknown)?;
        self.new_handle(Handle::Other, None)?;
        for _ in 0..self.number(4)? {
            self.value(code, depth)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..2048)) {
            let _ = strings(&bytes, "C", "f");
            let _ = strings(&[&MAGIC[..], &bytes].concat(), "C", "f");
            let _ = numbers(&[&MAGIC[..], &bytes].concat(), "C", "f");
        }
    }

    #[test]
    fn nesting_without_end_is_refused() {
        // An enum constant whose name is an enum constant, and so on, each of a null class.
        let deep: Vec<u8> = MAGIC.into_iter().chain([0x7e, 0x70].into_iter().cycle().take(LENGTH - 4)).collect();
        assert_eq!(strings(&deep, "C", "f"), Err(Unreadable::TooLarge));
        assert_eq!(strings(&vec![0; LENGTH + 1], "C", "f"), Err(Unreadable::TooLarge));
    }
}
