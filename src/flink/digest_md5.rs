//! Implements the client side of SASL's mechanism DIGEST-MD5 (RFC 2831) for ZooKeeper: the first authentication of a
//! connection, quality of protection `auth`, no authorization identity. The caller passes in the random nonce.

use md5::{Digest, Md5};

/// `<protocol>/<server name>`, the same for every ZooKeeper server
/// (`org.apache.zookeeper.util.SecurityUtils.createSaslClient` and `org.apache.zookeeper.server.ZooKeeperSaslServer`,
/// ZooKeeper 3.4 to 3.9).
pub const ZOOKEEPER: &str = "zookeeper/zk-sasl-md5";

/// Longest challenge in bytes (RFC 2831 2.1.1).
pub const CHALLENGE_LIMIT: usize = 2048;

/// Credentials of a client, and the service to which it authenticates.
#[derive(Clone, Copy)]
pub struct Login<'a> {
    pub username: &'a str,
    pub password: &'a str,
    /// `digest-uri`
    pub service: &'a str,
}

/// The client's answer to a challenge.
#[derive(Clone, PartialEq, Eq)]
pub struct ClientAnswer {
    pub token: Vec<u8>,
    /// The value that the server can compute only if it knows the password too.
    proof: String,
}

/// Answers a server's challenge. `nonce`: random, never used before.
///
/// # Errors
/// What is wrong with the challenge.
pub fn answer(challenge: &[u8], login: Login<'_>, nonce: &str) -> Result<ClientAnswer, &'static str> {
    let directives = directives(challenge).ok_or("it is not a list of directives")?;
    let named = |name: &str| directives.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str());
    let theirs = named("nonce").ok_or("it has no nonce")?;
    // A ZooKeeper server offers a single realm, its name.
    let realm = named("realm").ok_or("it has no realm")?;
    if named("algorithm") != Some("md5-sess") {
        return Err("its algorithm is not md5-sess");
    }
    if named("charset") != Some("utf-8") {
        return Err("its charset is not utf-8");
    }
    if !named("qop").unwrap_or("auth").split(',').any(|one| one.trim() == "auth") {
        return Err("it does not offer the quality of protection auth");
    }
    let secret =
        Md5::digest([&octets(login.username)[..], b":", &octets(realm), b":", &octets(login.password)].concat());
    let session = hex(&Md5::digest([&secret[..], b":", theirs.as_bytes(), b":", nonce.as_bytes()].concat()));
    // The values of the two sides differ in one word (RFC 2831 2.1.2.1 and 2.1.3).
    let response = |word: &str| {
        let what = hex(&Md5::digest(format!("{word}:{}", login.service)));
        hex(&Md5::digest(format!("{session}:{theirs}:00000001:{nonce}:auth:{what}")))
    };
    let (username, realm, theirs, service) =
        (quoted(login.username), quoted(realm), quoted(theirs), quoted(login.service));
    let token = format!(
        "charset=utf-8,username={username},realm={realm},nonce={theirs},nc=00000001,cnonce={},digest-uri={service},response={},qop=auth",
        quoted(nonce),
        response("AUTHENTICATE"),
    );
    Ok(ClientAnswer { token: token.into_bytes(), proof: response("") })
}

impl ClientAnswer {
    /// Does the server's last token prove that it knows the password?
    pub fn is_known_to(&self, last_word: &[u8]) -> bool {
        let said = directives(last_word).unwrap_or_default();
        said.iter().any(|(key, value)| key == "rspauth" && *value == self.proof)
    }
}

/// Parses `key=value` pairs, separated by commas; values may be quoted.
fn directives(token: &[u8]) -> Option<Vec<(String, String)>> {
    let mut rest = std::str::from_utf8(token).ok()?;
    let mut found = Vec::new();
    loop {
        rest = rest.trim_start_matches([',', ' ', '\t', '\r', '\n']);
        if rest.is_empty() {
            return Some(found);
        }
        let (key, after) = rest.split_once('=')?;
        let (value, left) = match after.trim_start().strip_prefix('"') {
            Some(inside) => unquoted(inside)?,
            None => {
                let (value, left) = after.split_at(after.find(',').unwrap_or(after.len()));
                (value.trim().to_owned(), left)
            }
        };
        found.push((key.trim().to_ascii_lowercase(), value));
        rest = left;
    }
}

/// Returns the text up to the closing quote, and the rest after it.
fn unquoted(inside: &str) -> Option<(String, &str)> {
    let mut value = String::new();
    let mut characters = inside.char_indices();
    loop {
        match characters.next()? {
            (at, '"') => return Some((value, &inside[at + 1..])),
            (_, '\\') => value.push(characters.next()?.1),
            (_, other) => value.push(other),
        }
    }
}

fn quoted(text: &str) -> String {
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
}

/// Encodes a text for hashing: in ISO 8859-1 if that can represent it, otherwise in UTF-8 (RFC 2831 2.1.2.1).
fn octets(text: &str) -> Vec<u8> {
    text.chars()
        .map(|character| u8::try_from(character).ok())
        .collect::<Option<Vec<u8>>>()
        .unwrap_or_else(|| text.as_bytes().to_vec())
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn said(answer: &ClientAnswer) -> Vec<(String, String)> {
        directives(&answer.token).unwrap_or_default()
    }

    fn response(challenge: &str, login: Login<'_>, nonce: &str) -> (String, ClientAnswer) {
        let answer = answer(challenge.as_bytes(), login, nonce).unwrap_or_else(|why| panic!("{why}"));
        let response = said(&answer).into_iter().find(|(key, _)| key == "response").unwrap_or_default().1;
        (response, answer)
    }

    #[test]
    fn both_examples_of_rfc_2831_section_4() {
        let login = |service| Login { username: "chris", password: "secret", service };
        let imap = r#"realm="elwood.innosoft.com",nonce="OA6MG9tEQGm2hh",qop="auth",algorithm=md5-sess,charset=utf-8"#;
        let (said_to_imap, answer) = response(imap, login("imap/elwood.innosoft.com"), "OA6MHXh6VqTrRk");
        assert_eq!(said_to_imap, "d388dad90d4bbd760a152321f2143af7");
        assert!(answer.is_known_to(b"rspauth=ea40f60335c427b5527b84dbabcdfffd"));
        assert_eq!(
            String::from_utf8_lossy(&answer.token),
            "charset=utf-8,username=\"chris\",realm=\"elwood.innosoft.com\",nonce=\"OA6MG9tEQGm2hh\",nc=00000001,cnonce=\"OA6MHXh6VqTrRk\",\
             digest-uri=\"imap/elwood.innosoft.com\",response=d388dad90d4bbd760a152321f2143af7,qop=auth"
        );
        let acap = r#"realm="elwood.innosoft.com",nonce="OA9BSXrbuRhWay",qop="auth",algorithm=md5-sess,charset=utf-8"#;
        let (said_to_acap, answer) = response(acap, login("acap/elwood.innosoft.com"), "OA9BSuZWMSpW8m");
        assert_eq!(said_to_acap, "6084c6db3fede7352c551284490fd0fc");
        assert!(answer.is_known_to(b"rspauth=2f0b3d7c3c2e486600ef710726aa2eae"));
        for other in
            ["rspauth=ea40f60335c427b5527b84dbabcdfffd", "rspauth=", "", "\"", "2f0b3d7c3c2e486600ef710726aa2eae"]
        {
            assert!(!answer.is_known_to(other.as_bytes()), "{other}");
        }
    }

    #[test]
    fn a_challenge_that_cannot_be_answered_is_refused_by_what_is_wrong_with_it() {
        let login = Login { username: "flink", password: "secret", service: ZOOKEEPER };
        let whole = r#"realm="zk-sasl-md5",nonce="n",charset=utf-8,algorithm=md5-sess"#;
        assert!(answer(whole.as_bytes(), login, "c").is_ok(), "without qop it is auth");
        for (challenge, expected) in [
            ("", "no nonce"),
            ("`\u{2}\u{1}", "not a list"),
            (r#"nonce="never closed"#, "not a list"),
            (r#"nonce="n",charset=utf-8,algorithm=md5-sess"#, "no realm"),
            (r#"realm="r",nonce="n",charset=utf-8"#, "algorithm"),
            (r#"realm="r",nonce="n",algorithm=md5-sess"#, "charset"),
            (r#"realm="r",nonce="n",charset=utf-8,algorithm=md5-sess,qop="auth-conf""#, "quality"),
        ] {
            let why = answer(challenge.as_bytes(), login, "c").err().unwrap_or_default();
            assert!(why.contains(expected), "{challenge}: {why}");
        }
    }

    #[test]
    fn names_are_quoted_as_they_are_sent_and_hashed_as_they_are() {
        assert_eq!((octets("Zoë"), octets("Zoë€")), (b"Zo\xeb".to_vec(), "Zoë€".as_bytes().to_vec()));
        let challenge = r#" realm="a \"b\"" , nonce="1,2=3", charset=utf-8,ALGORITHM=md5-sess,qop="auth-int, auth""#;
        let login = Login { username: r#"one\"two"#, password: "p", service: ZOOKEEPER };
        let (_, answer) = response(challenge, login, "c");
        let said = said(&answer);
        for (key, value) in
            [("username", r#"one\"two"#), ("realm", r#"a "b""#), ("nonce", "1,2=3"), ("digest-uri", ZOOKEEPER)]
        {
            assert!(said.contains(&(key.to_owned(), value.to_owned())), "{key}: {said:?}");
        }
    }

    proptest! {
        #[test]
        fn no_challenge_makes_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..256), text in "[a-z\"\\\\=, é€]{0,64}") {
            let login = Login { username: &text, password: &text, service: ZOOKEEPER };
            for challenge in [&bytes, text.as_bytes(), format!("realm=\"{text}\",nonce=n,charset=utf-8,algorithm=md5-sess").as_bytes()] {
                if let Ok(answer) = answer(challenge, login, "c") {
                    prop_assert!(!answer.is_known_to(&bytes) && directives(&answer.token).is_some());
                }
            }
        }

        #[test]
        fn what_is_quoted_is_read_back(text in any::<String>()) {
            let quoted = quoted(&text);
            prop_assert_eq!(unquoted(&quoted[1..]), Some((text, "")));
        }
    }
}
