//! Plain HTTP inside a pod.

use bytes::Bytes;
use http_body_util::Full;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::client::legacy::{Builder, Client};
use hyper_util::rt::TokioExecutor;

/// Knows no TLS and no proxies.
pub type PlainClient = Client<HttpConnector, Full<Bytes>>;

/// A client that makes a connection for each request, because the other side is asked seldom.
pub fn plain_client() -> PlainClient {
    let mut builder: Builder = Client::builder(TokioExecutor::new());
    builder.pool_max_idle_per_host(0).build_http()
}
