//! Connections to the API server by HTTP/2. A watch is always open on one, so it is always warm: a failover waits for
//! no TLS handshake, of which it would need three with HTTP/1.1, where a watch keeps its connection for itself and idle
//! ones are closed after 90 s.

use std::time::Duration;

use hyper_rustls::{FixedServerNameResolver, HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::client::legacy::{self, Builder};
use hyper_util::rt::{TokioExecutor, TokioTimer};
use kube::client::{Body, ConfigExt};
use kube::{Client, Config};
use tower::ServiceBuilder;

/// A connection on which nothing comes is asked for a sign of life, and given up when none comes.
const PING_INTERVAL: Duration = Duration::from_secs(5);
const PING_TIMEOUT: Duration = Duration::from_secs(5);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);

/// Of a body's own kind, for requests that are passed on.
pub type HttpClient<B> = legacy::Client<HttpsConnector<HttpConnector>, B>;

/// # Errors
/// When the certificates of the configuration cannot be read.
pub fn http_client<B>(config: &Config) -> Result<HttpClient<B>, kube::Error>
where
    B: http_body::Body<Data = bytes::Bytes> + Send,
{
    Ok(builder().build(connector(config)?))
}

/// A client of its own connection. It retries nothing by itself: a write of the Lease is never repeated.
///
/// # Errors
/// When certificates or credentials of the configuration cannot be read.
pub fn client(config: &Config) -> Result<Client, kube::Error> {
    let http: HttpClient<Body> = builder().build(connector(config)?);
    let service = ServiceBuilder::new()
        .layer(config.base_uri_layer())
        .option_layer(config.auth_layer()?)
        .layer(config.extra_headers_layer()?)
        .map_err(tower::BoxError::from)
        .service(http);
    Ok(Client::new(service, config.default_namespace.clone()))
}

fn builder() -> Builder {
    let mut builder = legacy::Client::builder(TokioExecutor::new());
    builder
        .timer(TokioTimer::new())
        .http2_keep_alive_interval(PING_INTERVAL)
        .http2_keep_alive_timeout(PING_TIMEOUT)
        .http2_keep_alive_while_idle(true);
    builder
}

fn connector(config: &Config) -> Result<HttpsConnector<HttpConnector>, kube::Error> {
    let mut http = HttpConnector::new();
    http.enforce_http(false);
    http.set_nodelay(true);
    http.set_connect_timeout(Some(CONNECT_TIMEOUT));
    let mut builder = HttpsConnectorBuilder::new().with_tls_config(config.rustls_client_config()?).https_or_http();
    if let Some(name) = config.tls_server_name.clone().and_then(|name| name.try_into().ok()) {
        builder = builder.with_server_name_resolver(FixedServerNameResolver::new(name));
    }
    Ok(builder.enable_all_versions().wrap_connector(http))
}
