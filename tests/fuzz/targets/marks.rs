//! Marks of a storage directory as anybody may have written them: at first sight only our own writing, or none, makes
//! the directory ours.

use std::time::Duration;

use crate::ha_data::marks::{Mark, Sharing, SignatureRecords, Standing, Watch, certificates_of, is_of_another};
use crate::input::{Input, record};
use crate::ledger::jobs::HaData;

pub fn run(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    let choices = input.byte();
    let noted: HaData = record(input.line()).unwrap_or_default();
    let certificates = certificates_of(&String::from_utf8_lossy(bytes));
    assert!(certificates.iter().all(|digest| digest.len() == 32 && !digest.contains(|c: char| !c.is_ascii_hexdigit())));
    let us = Mark {
        owner: "ours".to_owned(),
        certificates: vec!["c1".to_owned()],
        process: "process-a".to_owned(),
        jvm: "jvm-a".to_owned(),
        count: 0,
    };
    let records = SignatureRecords::of(&noted);
    let (mut watch, mut now) = (Watch::default(), Duration::from_secs(1000));
    for look in 0..6 {
        let found = (!input.is_empty()).then(|| input.text());
        let mark = found.as_deref().map(Mark::read);
        if let Some(Some(mark)) = &mark {
            assert_eq!(Mark::read(&mark.to_text()).as_ref(), Some(mark));
        }
        let looked = watch.look(&us, found.as_deref(), &records, now, choices & 1 != 0);
        let author = mark.as_ref().and_then(Option::as_ref);
        let is_ours = author.is_some_and(|author| author.process == us.process || author.jvm == us.jvm);
        if look == 0 && found.is_some() && !is_ours {
            assert_ne!(looked.standing, Standing::Ours, "by another's mark {found:?}");
        }
        let is_foreign = author
            .is_some_and(|author| !author.certificates.is_empty() && !author.certificates.contains(&"c1".to_owned()));
        if is_foreign {
            assert_eq!(looked.standing, Standing::Shared(Sharing::Certificate));
            assert_eq!(looked.write, None, "another cluster's mark is written over");
        }
        assert_eq!(
            is_of_another(&us, found.as_deref(), &records),
            matches!(looked.standing, Standing::Shared(Sharing::Certificate | Sharing::Unidentified))
        );
        assert!(looked.write.is_none_or(|mark| mark.process == us.process && mark.owner == us.owner));
        assert_ne!(looked.standing.beside(&["other".to_owned()]), Standing::Ours);
        now += Duration::from_secs(u64::from(choices));
    }
}
