//! Writes Java's key stores in their format `JKS` (`sun.security.provider.JavaKeyStore` and `KeyProtector`): Flink
//! reads no PEM.
//!
//! The format's cipher is weak, which does not matter: whoever can read the store can read its password
//! ([`super::tls::PASSWORD`]). In return it needs nothing but SHA-1, every JDK from 8 on reads it, and unlike PKCS #12
//! it has trusted certificates of its own.

use ring::digest::{Context, SHA1_FOR_LEGACY_USE_ONLY, SHA1_OUTPUT_LEN};

const MAGIC: u32 = 0xfeed_feed;
const VERSION: u32 = 2;
const PRIVATE_KEY: u32 = 1;
const TRUSTED_CERTIFICATE: u32 = 2;
/// What the digest of a store begins with, after the password.
const WHITENER: &[u8] = b"Mighty Aphrodite";
/// Object identifier of the cipher, 1.3.6.1.4.1.42.2.17.1.1, as a DER AlgorithmIdentifier.
const CIPHER: [u8; 16] =
    [0x30, 0x0e, 0x06, 0x0a, 0x2b, 0x06, 0x01, 0x04, 0x01, 0x2a, 0x02, 0x11, 0x01, 0x01, 0x05, 0x00];

/// Random bytes for a private key's cipher.
pub type Salt = [u8; SHA1_OUTPUT_LEN];

/// Returns a key store with one private key (PKCS #8) and its certificates, the key's own first.
pub fn key_store(password: &str, key: &[u8], chain: &[impl AsRef<[u8]>], salt: &Salt) -> Vec<u8> {
    let mut entry = PRIVATE_KEY.to_be_bytes().to_vec();
    entry.extend(name("flink"));
    entry.extend(sized(&der(0x30, &[&CIPHER, &der(0x04, &[&encrypted(password, key, salt)])[..]])));
    entry.extend(count(chain.len()));
    chain.iter().for_each(|certificate| entry.extend(self::certificate(certificate.as_ref())));
    store(password, 1, &entry)
}

/// Returns a trust store.
pub fn trust_store(password: &str, authorities: &[impl AsRef<[u8]>]) -> Vec<u8> {
    let mut entries = Vec::new();
    for (index, authority) in authorities.iter().enumerate() {
        entries.extend(TRUSTED_CERTIFICATE.to_be_bytes());
        entries.extend(name(&format!("authority-{index}")));
        entries.extend(certificate(authority.as_ref()));
    }
    store(password, authorities.len(), &entries)
}

fn store(password: &str, number: usize, entries: &[u8]) -> Vec<u8> {
    let mut store = [MAGIC.to_be_bytes(), VERSION.to_be_bytes(), count(number)].concat();
    store.extend(entries);
    let digest = sha1(&[&utf_16(password), WHITENER, &store]);
    store.extend(digest);
    store
}

/// An alias, and a date that means nothing.
fn name(alias: &str) -> Vec<u8> {
    [&text(alias)[..], &[0; 8]].concat()
}

fn certificate(der: &[u8]) -> Vec<u8> {
    [text("X.509"), sized(der)].concat()
}

/// Text as `DataOutput.writeUTF` writes ASCII.
fn text(text: &str) -> Vec<u8> {
    [&u16::try_from(text.len()).unwrap_or(u16::MAX).to_be_bytes()[..], text.as_bytes()].concat()
}

fn sized(bytes: &[u8]) -> Vec<u8> {
    [&count(bytes.len())[..], bytes].concat()
}

fn count(number: usize) -> [u8; 4] {
    u32::try_from(number).unwrap_or(u32::MAX).to_be_bytes()
}

fn encrypted(password: &str, key: &[u8], salt: &Salt) -> Vec<u8> {
    let password = utf_16(password);
    let mut block = *salt;
    let mut cipher = Vec::with_capacity(key.len());
    for part in key.chunks(SHA1_OUTPUT_LEN) {
        block = sha1(&[&password, &block]);
        cipher.extend(part.iter().zip(block).map(|(clear, mask)| clear ^ mask));
    }
    [&salt[..], &cipher, &sha1(&[&password, key])].concat()
}

fn utf_16(text: &str) -> Vec<u8> {
    text.encode_utf16().flat_map(u16::to_be_bytes).collect()
}

fn sha1(parts: &[&[u8]]) -> Salt {
    let mut context = Context::new(&SHA1_FOR_LEGACY_USE_ONLY);
    parts.iter().for_each(|part| context.update(part));
    let mut digest = Salt::default();
    digest.copy_from_slice(context.finish().as_ref());
    digest
}

/// Returns a DER element.
fn der(tag: u8, parts: &[&[u8]]) -> Vec<u8> {
    let length: usize = parts.iter().map(|part| part.len()).sum();
    let mut element = vec![tag];
    match u8::try_from(length) {
        Ok(short) if short < 0x80 => element.push(short),
        _ => {
            let bytes = length.to_be_bytes();
            let bytes = &bytes[bytes.iter().take_while(|byte| **byte == 0).count()..];
            element.push(0x80 | u8::try_from(bytes.len()).unwrap_or_default());
            element.extend(bytes);
        }
    }
    parts.iter().for_each(|part| element.extend(*part));
    element
}

/// Returns an RSA key (PKCS #1) as PKCS #8.
pub fn rsa_as_pkcs8(key: &[u8]) -> Vec<u8> {
    /// rsaEncryption, 1.2.840.113549.1.1.1.
    const RSA: [u8; 15] = [0x30, 0x0d, 0x06, 0x09, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x01, 0x05, 0x00];
    pkcs8(&RSA, key)
}

/// Returns a key of an elliptic curve (SEC 1) as PKCS #8; `None` if it does not name P-256 or P-384.
pub fn ec_as_pkcs8(key: &[u8]) -> Option<Vec<u8>> {
    /// id-ecPublicKey, 1.2.840.10045.2.1.
    const EC: [u8; 9] = [0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01];
    /// P-256 and P-384.
    const CURVES: [&[u8]; 2] =
        [&[0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07], &[0x06, 0x05, 0x2b, 0x81, 0x04, 0x00, 0x22]];
    // The curve is the optional element [0].
    let named = |curve: &[u8]| {
        let parameters = der(0xa0, &[curve]);
        key.windows(parameters.len()).any(|window| window == parameters)
    };
    let curve = CURVES.into_iter().find(|curve| named(curve))?;
    Some(pkcs8(&der(0x30, &[&EC, curve]), key))
}

fn pkcs8(algorithm: &[u8], key: &[u8]) -> Vec<u8> {
    /// Version 0.
    const ZERO: [u8; 3] = [0x02, 0x01, 0x00];
    der(0x30, &[&ZERO, algorithm, &der(0x04, &[key])])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_length_has_as_many_bytes_as_it_needs() {
        assert_eq!(der(4, &[&[7; 127]])[..2], [4, 127]);
        assert_eq!(der(4, &[&[7; 128]])[..3], [4, 0x81, 128]);
        assert_eq!(der(4, &[&[7; 100], &[7; 200]])[..4], [4, 0x82, 1, 44]);
    }

    #[test]
    fn a_key_is_masked_and_comes_back_under_its_password() {
        let (key, salt) = ([7; 50], [9; SHA1_OUTPUT_LEN]);
        let written = encrypted("word", &key, &salt);
        assert_eq!((&written[..20], written.len()), (&salt[..], 20 + key.len() + 20));
        // The mask is its own inverse.
        assert_eq!(encrypted("word", &written[20..70], &salt)[20..70], key);
        assert_ne!(encrypted("another", &written[20..70], &salt)[20..70], key);
    }

    #[test]
    fn a_curve_is_found_where_a_key_names_it_and_nowhere_else() {
        let curve = [0x06, 0x05, 0x2b, 0x81, 0x04, 0x00, 0x22];
        assert_eq!(ec_as_pkcs8(&curve), None);
        let named = der(0xa0, &[&curve]);
        let wrapped = ec_as_pkcs8(&named).unwrap_or_default();
        assert!(wrapped.starts_with(&[0x30]) && wrapped.ends_with(&named), "{wrapped:x?}");
    }
}
