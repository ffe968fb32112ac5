//! Streams of Java's serialization: pointers in ConfigMaps and znodes, addresses of leaders, files of checkpoints; and
//! names of files.

use base64::Engine;
use base64::prelude::BASE64_STANDARD;

use crate::flink::ha_file::{Kind, is_named_in};
use crate::flink::{checkpoint, pointer, znodes};
use crate::input::contains;

pub fn run(bytes: &[u8]) {
    of_pointer(bytes);
    if let Some(address) = znodes::address(bytes) {
        assert!(contains(bytes, address.as_bytes()));
    }
    of_checkpoint(bytes);
    let text = String::from_utf8_lossy(bytes);
    let is_marked = pointer::is_marked_for_deletion(&text);
    assert!(!is_marked || text.trim().is_ascii(), "it is base64");
    of_path(&text);
    of_names(bytes, &text);
}

/// A pointer is read to its very end or not at all, and the name of a file is not made up.
fn of_pointer(bytes: &[u8]) {
    let Ok(uri) = pointer::file_of(bytes) else { return };
    assert!(contains(bytes, uri.as_bytes()));
    assert!(uri.ends_with(pointer::name(&uri)) && !pointer::name(&uri).contains('/'));
    assert_eq!(pointer::file(&BASE64_STANDARD.encode(bytes)), Ok(uri));
    assert!(pointer::file_of(&bytes[..bytes.len() - 1]).is_err(), "a pointer that is cut off");
    assert!(pointer::file_of(&[bytes, b"x"].concat()).is_err(), "a pointer with something behind it");
}

fn of_checkpoint(bytes: &[u8]) {
    if let Some(job) = checkpoint::job(bytes) {
        let number = u128::from_str_radix(job.as_str(), 16).expect("an id is a number");
        assert!(contains(bytes, &number.to_be_bytes()));
    }
    if let Some(location) = checkpoint::location(bytes) {
        let length = u16::try_from(location.len() + "/_metadata".len()).expect("a path is short");
        let written = [b"t", &length.to_be_bytes()[..], location.as_bytes(), b"/_metadata"].concat();
        assert!(contains(bytes, &written));
    }
}

/// Files of plans and checkpoints stand in the directory itself, blobs in that of their job, and none leads out of it.
fn of_path(path: &str) {
    match Kind::of(path) {
        Kind::Plan | Kind::Checkpoint => assert!(!path.contains('/')),
        Kind::Blob(job) => {
            let (directory, name) = path.rsplit_once('/').expect("a blob has a directory");
            assert!(name.starts_with("blob_"));
            assert!([format!("blob/job_{job}"), format!("blob/application_{job}")].contains(&directory.to_owned()));
        }
        Kind::Marker | Kind::Foreign => {}
    }
}

/// A plan names the blobs whose hash it contains, and a name in quarantine tells whose it is.
fn of_names(bytes: &[u8], text: &str) {
    let (plan, path) = text.split_once('\n').unwrap_or((text, text));
    assert!(!is_named_in(plan.as_bytes(), path) || (path.contains("blob_p-") && plan.len() >= 20));
    if bytes.len() >= 20 {
        let hash: String = bytes[..20].iter().map(|byte| format!("{byte:02x}")).collect();
        assert!(is_named_in(bytes, &format!("blob/job_x/blob_p-{hash}-1")));
    }
    if let Some((kind, id)) = znodes::of_quarantine_name(text) {
        assert_eq!(znodes::quarantine_name(kind, id.as_str()), text);
    }
}
