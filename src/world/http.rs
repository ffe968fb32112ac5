//! Makes clients for plain HTTP inside a pod.

use bytes::Bytes;
use http_body_util::Full;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::client::legacy::{Builder, Client};
use hyper_util::rt::TokioExecutor;

/// A client without TLS and without proxies.
pub type PlainClient = Client<HttpConnector, Full<Bytes>>;

/// Makes a client that opens a connection per request, because requests are rare.
pub fn plain_client() -> PlainClient {
    let mut builder: Builder = Client::builder(TokioExecutor::new());
    builder.pool_max_idle_per_host(0).build_http()
}
