//! Makes clients of the API server that use HTTP/2. A watch is always open on the connection, which therefore is always
//! established, so a failover waits for no TLS handshake. With HTTP/1.1 it would need three: a watch occupies its
//! connection, and the server closes idle ones after 90 s.

use std::task::{Context, Poll};
use std::time::Duration;

use futures::future::{Either, Ready, ready};
use http::{Request, Response};
use hyper_rustls::{FixedServerNameResolver, HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::client::legacy::{self, Builder};
use hyper_util::rt::{TokioExecutor, TokioTimer};
use kube::client::{Body, ClientBuilder, ConfigExt};
use kube::{Client, Config};
use tower::layer::layer_fn;
use tower::util::MapResultLayer;
use tower::{BoxError, Service, ServiceBuilder};

/// The client pings an idle connection after this time, and drops it without an answer.
const PING_INTERVAL: Duration = Duration::from_secs(5);
const PING_TIMEOUT: Duration = Duration::from_secs(5);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);

/// HTTP client whose requests have a body of type `B`, for requests that the gateway forwards.
pub type HttpClient<B> = legacy::Client<HttpsConnector<HttpConnector>, B>;

/// Makes an HTTP client for the API server of the configuration.
///
/// # Errors
/// When the certificates of the configuration cannot be read.
pub fn http_client<B>(config: &Config) -> Result<HttpClient<B>, kube::Error>
where
    B: http_body::Body<Data = bytes::Bytes> + Send,
{
    Ok(builder().build(connector(config)?))
}

/// Makes a Kubernetes client with its own connection. It retries nothing: nobody repeats a write of the Lease.
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

/// Makes a client for a program without tight deadlines, as kube makes it: it also supports a proxy. It retries nothing
/// either. By default kube repeats a write that was answered with 429, 503 or 504 up to 15 times, although the state on
/// which it was decided may have changed. The caller observes and decides again instead.
///
/// # Errors
/// When certificates or credentials of the configuration cannot be read.
pub fn client_without_retries(mut config: Config) -> Result<Client, kube::Error> {
    config.default_retry = false;
    Client::try_from(config)
}

/// Makes a client as [`client_without_retries`] does. It calls `count` with the status code of each answer, and with
/// `None` when there is none.
///
/// # Errors
/// When certificates or credentials of the configuration cannot be read.
pub fn counted_client<F>(config: Config, count: F) -> Result<Client, kube::Error>
where
    F: Fn(Option<u16>) + Clone + Send + Sync + 'static,
{
    checked_client(config, |_| Ok(()), count)
}

/// Makes a client as [`counted_client`] does. It calls `check` for each request at the moment of sending, and does not
/// send what that rejects.
///
/// # Errors
/// When certificates or credentials of the configuration cannot be read.
pub fn checked_client<C, F>(mut config: Config, check: C, count: F) -> Result<Client, kube::Error>
where
    C: Fn(&Request<Body>) -> Result<(), BoxError> + Clone + Send + Sync + 'static,
    F: Fn(Option<u16>) + Clone + Send + Sync + 'static,
{
    config.default_retry = false;
    let counting = MapResultLayer::new(move |answer: Result<Response<_>, BoxError>| {
        count(answer.as_ref().ok().map(|answer| answer.status().as_u16()));
        answer
    });
    let layer = layer_fn(move |service| Checked { service, check: check.clone() });
    Ok(ClientBuilder::try_from(config)?.with_layer(&counting).with_layer(&layer).build())
}

/// Checks requests before it sends them.
struct Checked<S, C> {
    service: S,
    check: C,
}

impl<S, C> Service<Request<Body>> for Checked<S, C>
where
    S: Service<Request<Body>, Error = BoxError>,
    C: Fn(&Request<Body>) -> Result<(), BoxError>,
{
    type Response = S::Response;
    type Error = BoxError;
    type Future = Either<S::Future, Ready<Result<S::Response, BoxError>>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.service.poll_ready(context)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        match (self.check)(&request) {
            Ok(()) => Either::Left(self.service.call(request)),
            Err(error) => Either::Right(ready(Err(error))),
        }
    }
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

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use k8s_openapi::api::coordination::v1::Lease;
    use kube::Api;
    use kube::api::{Patch, PatchParams};
    use serde_json::json;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;

    /// Answers every request with this status, and counts the requests.
    async fn refusing(status: u16) -> (Config, Arc<AtomicUsize>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let url = format!("http://{}", listener.local_addr().expect("an address")).parse().expect("a URL");
        let asked = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&asked);
        tokio::spawn(async move {
            while let Ok((mut connection, _)) = listener.accept().await {
                let mut request = [0; 4096];
                let _ = connection.read(&mut request).await;
                count.fetch_add(1, Ordering::SeqCst);
                let answer = format!("HTTP/1.1 {status} x\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
                let _ = connection.write_all(answer.as_bytes()).await;
            }
        });
        (Config::new(url), asked)
    }

    /// Returns how often the client sends a write within half a second.
    async fn sent(client: Result<Client, kube::Error>, asked: &AtomicUsize) -> usize {
        let leases: Api<Lease> = Api::namespaced(client.expect("a client"), "flink");
        let patch = Patch::Merge(json!({ "metadata": { "resourceVersion": "1" } }));
        asked.store(0, Ordering::SeqCst);
        let parameters = PatchParams::default();
        let patched = leases.patch("demo", &parameters, &patch);
        assert!(!tokio::time::timeout(Duration::from_millis(500), patched).await.is_ok_and(|patched| patched.is_ok()));
        asked.load(Ordering::SeqCst)
    }

    #[tokio::test]
    async fn a_request_that_the_check_rejects_is_not_sent() {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let (config, asked) = refusing(429).await;
        let check = |request: &Request<Body>| {
            if request.method() == http::Method::GET { Ok(()) } else { Err("not now".into()) }
        };
        let client = checked_client(config, check, |_| ()).expect("a client");
        assert_eq!(sent(Ok(client.clone()), &asked).await, 0);
        let leases: Api<Lease> = Api::namespaced(client, "flink");
        leases.get("demo").await.expect_err("429");
        assert_eq!(asked.load(Ordering::SeqCst), 1);
    }

    #[tokio::test]
    async fn a_write_that_the_api_server_did_not_answer_well_is_not_sent_again() {
        let _ = rustls::crypto::ring::default_provider().install_default();
        for status in [429, 503, 504] {
            let (config, asked) = refusing(status).await;
            for client in [client(&config), client_without_retries(config.clone())] {
                assert_eq!(sent(client, &asked).await, 1, "{status}");
            }
            assert!(sent(Client::try_from(config), &asked).await > 1, "{status}: kube does not send it again either");
        }
    }
}
