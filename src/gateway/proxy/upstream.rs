//! Sends requests of the JVM to the API server: with the JVM's own credentials, without retries and without
//! interpretation.

use std::time::Duration;

use bytes::Bytes;
use http::header::{
    ACCEPT_ENCODING, CONNECTION, CONTENT_LENGTH, HOST, HeaderName, PROXY_AUTHENTICATE, PROXY_AUTHORIZATION, TE,
    TRAILER, TRANSFER_ENCODING, UPGRADE,
};
use http::{HeaderMap, Method, Request, Response, Uri};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use serde_json::Value;

use crate::telemetry::counts::CountsBy;
use crate::world::api_server::{HttpClient, http_client};

/// Longest body in bytes. An object in the API has at most 1.5 MiB, so anything longer is not a ConfigMap.
pub const BODY_LIMIT: usize = 4 << 20;

/// Limit for an answer; Flink's client gives up after 10 s.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(8);

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum UpstreamError {
    #[error("failed to reach the API server")]
    Unreachable(#[source] hyper_util::client::legacy::Error),
    #[error("the API server did not answer within {} s", ANSWER_TIMEOUT.as_secs())]
    Silent,
    #[error("failed to read the API server's answer: {0}")]
    Broken(Box<dyn std::error::Error + Send + Sync>),
    #[error("failed to make a request of it")]
    NoRequest(#[from] http::Error),
}

/// A connection pool to the API server.
#[derive(Clone)]
pub struct Upstream {
    client: HttpClient<Full<Bytes>>,
    base: String,
    requests: CountsBy,
}

/// An answer that was read to its end.
pub struct UpstreamAnswer {
    pub parts: http::response::Parts,
    pub bytes: Bytes,
}

impl UpstreamAnswer {
    /// Returns the body as JSON; `Null` if it is not JSON.
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.bytes).unwrap_or(Value::Null)
    }
}

impl Upstream {
    /// `requests`: counts requests by their answers.
    ///
    /// # Errors
    /// When the certificates of the configuration cannot be read.
    pub fn new(config: &kube::Config, requests: CountsBy) -> Result<Self, kube::Error> {
        let client = http_client(config)?;
        Ok(Self { client, base: config.cluster_url.to_string().trim_end_matches('/').to_owned(), requests })
    }

    /// Sends a request; returns as soon as the answer begins.
    pub async fn send(
        &self,
        method: Method,
        path: &str,
        headers: &HeaderMap,
        body: Bytes,
    ) -> Result<Response<Incoming>, UpstreamError> {
        let uri: Uri = format!("{}{path}", self.base).parse().map_err(http::Error::from)?;
        let mut request = Request::builder().method(method).uri(uri).body(Full::new(body))?;
        *request.headers_mut() = end_to_end(headers);
        let answer = tokio::time::timeout(ANSWER_TIMEOUT, self.client.request(request)).await;
        self.requests.inc_code(answer.as_ref().ok().and_then(|answer| Some(answer.as_ref().ok()?.status().as_u16())));
        match answer {
            Ok(answer) => answer.map_err(UpstreamError::Unreachable),
            Err(_) => Err(UpstreamError::Silent),
        }
    }

    /// Sends a request and reads the answer to its end. It does not accept compression, which the API server uses above
    /// 128 KiB, because the gateway itself reads the answer.
    pub async fn call(
        &self,
        method: Method,
        path: &str,
        headers: &HeaderMap,
        body: Bytes,
    ) -> Result<UpstreamAnswer, UpstreamError> {
        let mut headers = headers.clone();
        headers.remove(ACCEPT_ENCODING);
        let (parts, body) = self.send(method, path, &headers, body).await?.into_parts();
        let read = tokio::time::timeout(ANSWER_TIMEOUT, Limited::new(body, BODY_LIMIT).collect());
        let bytes = read.await.map_err(|_| UpstreamError::Silent)?.map_err(UpstreamError::Broken)?.to_bytes();
        Ok(UpstreamAnswer { parts, bytes })
    }
}

/// Headers that belong to one connection only (RFC 9110 §7.6.1; `Proxy-*` by §11.7), and those that the client sets for
/// each connection.
const OF_ONE_CONNECTION: [HeaderName; 11] = [
    CONNECTION,
    HeaderName::from_static("keep-alive"),
    PROXY_AUTHENTICATE,
    PROXY_AUTHORIZATION,
    HeaderName::from_static("proxy-connection"),
    TE,
    TRAILER,
    TRANSFER_ENCODING,
    UPGRADE,
    CONTENT_LENGTH,
    HOST,
];

/// Removes the headers that belong to one connection only: the known ones, and those that `Connection` names.
pub fn end_to_end(headers: &HeaderMap) -> HeaderMap {
    let values = headers.get_all(CONNECTION).into_iter().filter_map(|value| value.to_str().ok());
    let named = values.flat_map(|value| value.split(',')).map(str::trim);
    let mut kept = headers.clone();
    // A word that is not a header name refers to no header.
    for name in OF_ONE_CONNECTION.into_iter().chain(named.filter_map(|name| name.parse().ok())) {
        kept.remove(name);
    }
    kept
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn kept(headers: &[(&'static str, &'static str)]) -> Vec<String> {
        let mut all = HeaderMap::new();
        for (name, value) in headers {
            all.append(*name, HeaderValue::from_static(value));
        }
        let mut kept: Vec<String> = end_to_end(&all).keys().map(ToString::to_string).collect();
        kept.sort();
        kept
    }

    #[test]
    fn what_belongs_to_one_connection_stays_there() {
        for name in [
            "connection",
            "keep-alive",
            "proxy-authenticate",
            "proxy-authorization",
            "proxy-connection",
            "te",
            "trailer",
            "transfer-encoding",
            "upgrade",
        ] {
            assert_eq!(kept(&[(name, "x"), ("authorization", "Bearer y")]), ["authorization"], "{name}");
        }
    }

    #[test]
    fn what_connection_names_stays_there_in_whatever_case_and_however_often_it_is_said() {
        let headers = [
            ("connection", "close, X-One"),
            ("connection", " x-two ,, not a name"),
            ("x-one", "1"),
            ("x-one", "2"),
            ("x-two", "3"),
            ("x-three", "4"),
            ("accept", "application/json"),
        ];
        assert_eq!(kept(&headers), ["accept", "x-three"]);
        assert_eq!(kept(&[("close", "1"), ("accept", "*/*")]), ["accept", "close"], "not named by Connection");
    }
}
