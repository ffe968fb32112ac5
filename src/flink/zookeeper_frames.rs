//! Reads and writes the frames of ZooKeeper's protocol that begin, authenticate and close a session
//! (`org.apache.zookeeper.proto`, ZooKeeper 3.5 to 3.9).
//!
//! It deliberately knows no other request: the gateway forwards them without understanding them.

/// A client's session, with everything that another client needs to attach to it.
#[derive(Clone, PartialEq, Eq)]
pub struct Session {
    pub id: i64,
    /// 16 bytes that the quorum generated.
    pub password: Vec<u8>,
    /// Negotiated time-out.
    pub timeout_millis: i32,
}

impl std::fmt::Debug for Session {
    /// Omits the password: a client that knows it can end the session.
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "Session({:#x}, {} ms)", self.id, self.timeout_millis)
    }
}

/// Bytes of the length, big-endian, with which every frame begins.
pub const HEADER: usize = 4;
/// Longest connect frame in bytes; it has some 50.
pub const CONNECT_LIMIT: usize = 1024;

/// Returns the session in a `ConnectResponse` (without its length): protocol version, time-out, session, password, and
/// from 3.4 on a flag. `None` if the quorum has refused the session, which it signals by a time-out of zero
/// (`ZooKeeperServer.finishSessionInit`).
pub fn session_of_response(frame: &[u8]) -> Option<Session> {
    let mut rest = frame;
    take_i32(&mut rest)?;
    let timeout_millis = take_i32(&mut rest)?;
    let id = i64::from_be_bytes(take(&mut rest, 8)?.try_into().ok()?);
    let length = usize::try_from(take_i32(&mut rest)?).ok()?;
    let password = take(&mut rest, length)?.to_vec();
    (timeout_millis > 0 && id != 0).then_some(Session { id, password, timeout_millis })
}

/// Returns the frame by which a client attaches to a session (`ConnectRequest`), with its length.
pub fn attach(session: &Session) -> Vec<u8> {
    let mut frame = Vec::with_capacity(64);
    frame.extend(0_i32.to_be_bytes());
    // The last transaction seen. A server that lags behind it would refuse the connection.
    frame.extend(0_i64.to_be_bytes());
    frame.extend(session.timeout_millis.to_be_bytes());
    frame.extend(session.id.to_be_bytes());
    frame.extend(i32::try_from(session.password.len()).unwrap_or(0).to_be_bytes());
    frame.extend(&session.password);
    // Not read-only: only a server with a quorum may end a session.
    frame.push(0);
    framed(frame)
}

/// Returns the frame that closes the session (`RequestHeader` with `OpCode.closeSession`), with its length.
pub fn close() -> Vec<u8> {
    request(REQUEST, -11, &[])
}

/// Returns the frame that authenticates a client (`AuthPacket` with `OpCode.auth`), with its length. The reply has the
/// number [`AUTHENTICATION`].
pub fn authenticate(scheme: &str, who: &str) -> Vec<u8> {
    request(
        AUTHENTICATION,
        100,
        &[&0_i32.to_be_bytes()[..], &buffer(scheme.as_bytes()), &buffer(who.as_bytes())].concat(),
    )
}

/// Returns a frame with a client's SASL token (`GetSASLRequest` with `OpCode.sasl`), with its length. The reply holds
/// the server's token ([`token`]).
pub fn sasl(token: &[u8]) -> Vec<u8> {
    request(REQUEST, 102, &buffer(token))
}

/// Number of the gateway's own requests (`RequestHeader.xid`). Its connection has only one in flight.
pub const REQUEST: i32 = 1;
/// Number of the frame that authenticates a client (`ClientCnxn.AUTHPACKET_XID`).
pub const AUTHENTICATION: i32 = -4;

/// The server rejects the credentials (`KeeperException.Code.AUTHFAILED`).
pub const AUTH_FAILED: i32 = -115;
/// The server requires SASL authentication (`SESSIONCLOSEDREQUIRESASLAUTH`, from 3.6 on).
pub const AUTH_REQUIRED: i32 = -124;
/// The session has ended (`SESSIONEXPIRED`).
pub const SESSION_EXPIRED: i32 = -112;

/// A server's reply (`ReplyHeader`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ServerReply<'a> {
    pub to: i32,
    /// 0 if the server has done what the request asked for.
    pub error: i32,
    pub body: &'a [u8],
}

/// Reads the reply in a frame without its length: number of the request, transaction, error, body.
pub fn reply(frame: &[u8]) -> Option<ServerReply<'_>> {
    let mut rest = frame;
    let to = take_i32(&mut rest)?;
    take(&mut rest, 8)?;
    Some(ServerReply { to, error: take_i32(&mut rest)?, body: rest })
}

/// Returns the server's token in the body of a reply to [`sasl`] (`SetSASLResponse`); `None` if there is none, which
/// has the length -1.
pub fn token(body: &[u8]) -> Option<&[u8]> {
    let mut rest = body;
    let length = usize::try_from(take_i32(&mut rest)?).ok()?;
    take(&mut rest, length)
}

fn request(number: i32, operation: i32, body: &[u8]) -> Vec<u8> {
    framed([&number.to_be_bytes()[..], &operation.to_be_bytes(), body].concat())
}

fn buffer(bytes: &[u8]) -> Vec<u8> {
    let length = i32::try_from(bytes.len()).unwrap_or(0);
    [&length.to_be_bytes()[..], bytes].concat()
}

fn framed(frame: Vec<u8>) -> Vec<u8> {
    let length = u32::try_from(frame.len()).unwrap_or(u32::MAX);
    [length.to_be_bytes().to_vec(), frame].concat()
}

fn take<'a>(rest: &mut &'a [u8], length: usize) -> Option<&'a [u8]> {
    let (taken, left) = rest.split_at_checked(length)?;
    *rest = left;
    Some(taken)
}

fn take_i32(rest: &mut &[u8]) -> Option<i32> {
    Some(i32::from_be_bytes(take(rest, 4)?.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn session() -> Session {
        Session { id: 0x1000_0000_0001, password: (0..16).collect(), timeout_millis: 20_000 }
    }

    #[test]
    fn a_session_is_read_from_the_response_and_attached_to_by_the_request() {
        let request = attach(&session());
        // Length, version, transaction, timeout, session, password, read-only.
        assert_eq!(request.len(), 4 + 4 + 8 + 4 + 8 + 4 + 16 + 1);
        assert_eq!(u32::from_be_bytes([request[0], request[1], request[2], request[3]]) as usize, request.len() - 4);
        let mut response = [0_i32.to_be_bytes(), 20_000_i32.to_be_bytes()].concat();
        response.extend(&request[20..48]);
        response.push(0);
        assert_eq!(session_of_response(&response), Some(session()));
        response[4..8].copy_from_slice(&[0; 4]);
        assert_eq!(session_of_response(&response), None, "the quorum has forgotten the session");
        assert_eq!(close(), [0, 0, 0, 8, 0, 0, 0, 1, 0xff, 0xff, 0xff, 0xf5]);
        assert!(!format!("{:?}", session()).contains("15"), "a password is not for logs");
        let packet = authenticate("digest", "a:b");
        assert_eq!(packet[..20], [0, 0, 0, 29, 0xff, 0xff, 0xff, 0xfc, 0, 0, 0, 100, 0, 0, 0, 0, 0, 0, 0, 6]);
        assert!(packet.ends_with(b"digest\0\0\0\x03a:b"));
    }

    #[test]
    fn a_reply_tells_to_what_it_is_and_whether_it_went_well() {
        assert_eq!(sasl(b"hi"), [0, 0, 0, 14, 0, 0, 0, 1, 0, 0, 0, 102, 0, 0, 0, 2, b'h', b'i']);
        let frame = |error: i32, body: &[u8]| {
            [&1_i32.to_be_bytes()[..], &7_i64.to_be_bytes(), &error.to_be_bytes(), body].concat()
        };
        let well = frame(0, &[0, 0, 0, 2, b'y', b'o']);
        assert_eq!(reply(&well), Some(ServerReply { to: REQUEST, error: 0, body: &well[16..] }));
        assert_eq!(reply(&well).and_then(|reply| token(reply.body)), Some(&b"yo"[..]));
        let silent = frame(AUTH_REQUIRED, &(-1_i32).to_be_bytes());
        assert_eq!(reply(&silent).map(|reply| (reply.error, token(reply.body))), Some((-124, None)));
        assert_eq!((reply(&well[..15]), token(&[0, 0, 0, 9, 1])), (None, None));
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..128)) {
            let _ = session_of_response(&bytes);
            let _ = reply(&bytes).and_then(|reply| token(reply.body));
        }
    }
}
