//! Calls the REST API of the gateway's own JVM on loopback, in plain text or by TLS. An answer about jobs may be as old
//! as `web.refresh-interval`, 3 s by default.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use anyhow::Context;
use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{Method, Request, StatusCode};
use http_body_util::{BodyExt, Full, Limited};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use serde_json::Value;
use tokio::time::timeout;

use super::tls::{self, PemFiles};

/// Flink leaves a request unanswered for ten minutes when it loses its leader.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(3);
const LIMIT: usize = 16 << 20;

/// A client with and without TLS.
type RestClient = Client<HttpsConnector<HttpConnector>, Full<Bytes>>;

/// The REST endpoint of one JVM.
#[derive(Clone)]
pub struct Rest {
    /// `http://<address>:<port>`, or `https`.
    pub address: String,
    /// Directory with the certificate of a JVM that speaks TLS, and its key; `None` if they are unknown.
    certificates: Option<PathBuf>,
    /// Made for the first request: the certificates come after the gateway, and stay the same.
    client: Arc<OnceLock<RestClient>>,
    /// Why no connection with TLS comes about.
    trouble: Arc<Mutex<Option<String>>>,
}

impl Rest {
    pub fn new(address: &str) -> Self {
        Self { address: address.to_owned(), certificates: None, client: Arc::default(), trouble: Arc::default() }
    }

    /// The same by TLS. `certificates`: directory with the JVM's certificate and its key, `tls.crt` and `tls.key`;
    /// without it any certificate is accepted, and none is presented.
    pub fn with_tls(self, certificates: Option<PathBuf>) -> Self {
        Self { address: self.address.replacen("http:", "https:", 1), certificates, ..self }
    }

    /// Why the JVM cannot be asked, as far as TLS is the reason; `None` after a request that was answered.
    pub fn trouble(&self) -> Option<String> {
        self.trouble.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// When the JVM does not answer in time, and when its answer is not a success; the error then carries Flink's
    /// reason.
    pub async fn get(&self, path: &str) -> anyhow::Result<Value> {
        self.call(Method::GET, path, Bytes::new()).await
    }

    /// # Errors
    /// As [`Self::get`].
    pub async fn post(&self, path: &str, body: &Value) -> anyhow::Result<Value> {
        self.call(Method::POST, path, body.to_string().into()).await
    }

    /// Does Flink have a leader to answer with? `None` when it does not answer at all. Without one it answers with 503
    /// (`LeaderRetrievalHandler`, Flink 1.20 to 2.3).
    pub async fn serves(&self) -> Option<bool> {
        let (status, _) = self.ask(Method::GET, "/jobs/overview", Bytes::new()).await.ok()?;
        Some(status != StatusCode::SERVICE_UNAVAILABLE)
    }

    async fn call(&self, method: Method, path: &str, body: Bytes) -> anyhow::Result<Value> {
        let (status, bytes) = self.ask(method, path, body).await?;
        let json: Value = serde_json::from_slice(&bytes).unwrap_or_default();
        anyhow::ensure!(
            status.is_success() || status == StatusCode::ACCEPTED,
            "{status}: {}",
            first_error(&json).unwrap_or("no reason is given")
        );
        Ok(json)
    }

    async fn ask(&self, method: Method, path: &str, body: Bytes) -> anyhow::Result<(StatusCode, Bytes)> {
        let request = Request::builder().method(method).uri(format!("{}{path}", self.address));
        let request = request.header(CONTENT_TYPE, "application/json").body(Full::new(body))?;
        let client = self.client()?;
        let asked = async {
            let answer = client.request(request).await?;
            let status = answer.status();
            let bytes =
                Limited::new(answer.into_body(), LIMIT).collect().await.map_err(anyhow::Error::from_boxed)?.to_bytes();
            anyhow::Ok((status, bytes))
        };
        let answered = timeout(ANSWER_TIMEOUT, asked).await.context("the JobManager does not answer")?;
        self.note(&answered);
        answered
    }

    fn note(&self, answered: &anyhow::Result<(StatusCode, Bytes)>) {
        let trouble = match answered {
            // Flink answers a request in plain text so.
            Ok((status, _)) if status.is_redirection() => Some(
                "Flink's REST endpoint speaks TLS although spec.flinkConfiguration does not say so; use spec.tls.rest"
                    .to_owned(),
            ),
            Ok(_) => None,
            Err(error) => match tls::handshake_error(error.as_ref()) {
                Some(error) => Some(tls::told(error)),
                // Something else: nothing is known about TLS.
                None => return,
            },
        };
        *self.trouble.lock().unwrap_or_else(PoisonError::into_inner) = trouble;
    }

    /// # Errors
    /// When the certificate is not there (yet), or cannot be used.
    fn client(&self) -> anyhow::Result<&RestClient> {
        if let Some(client) = self.client.get() {
            return Ok(client);
        }
        let known = match &self.certificates {
            Some(directory) => Some(PemFiles::read(directory)?.identity().context("the JobManager's certificate")?),
            None => None,
        };
        let connector = HttpsConnectorBuilder::new().with_tls_config(tls::loopback(known)?).https_or_http();
        let mut builder = Client::builder(TokioExecutor::new());
        // A connection per request, because requests are rare.
        let client = builder.pool_max_idle_per_host(0).build(connector.enable_http1().build());
        Ok(self.client.get_or_init(|| client))
    }
}

/// Returns Flink's reason in an answer that is an error: the first line of its errors that says something.
pub fn first_error(json: &Value) -> Option<&str> {
    let errors = json["errors"].as_array().into_iter().flatten().filter_map(Value::as_str);
    errors.flat_map(str::lines).find(|line| !line.trim().is_empty())
}
