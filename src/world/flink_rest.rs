//! Calls the REST API of the gateway's own JVM on loopback. An answer about jobs may be as old as
//! `web.refresh-interval`, 3 s by default.

use std::time::Duration;

use anyhow::Context;
use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{Method, Request, StatusCode};
use http_body_util::{BodyExt, Full, Limited};
use serde_json::Value;
use tokio::time::timeout;

use super::http::{PlainClient, plain_client};

/// Flink leaves a request unanswered for ten minutes when it loses its leader.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(3);
const LIMIT: usize = 16 << 20;

/// The REST endpoint of one JVM.
#[derive(Clone)]
pub struct Rest {
    /// `http://<address>:<port>`
    pub address: String,
    client: PlainClient,
}

impl Rest {
    pub fn new(address: &str) -> Self {
        Self { address: address.to_owned(), client: plain_client() }
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

    async fn call(&self, method: Method, path: &str, body: Bytes) -> anyhow::Result<Value> {
        let request = Request::builder().method(method).uri(format!("{}{path}", self.address));
        let request = request.header(CONTENT_TYPE, "application/json").body(Full::new(body))?;
        let asked = async {
            let answer = self.client.request(request).await?;
            let status = answer.status();
            let bytes =
                Limited::new(answer.into_body(), LIMIT).collect().await.map_err(anyhow::Error::from_boxed)?.to_bytes();
            anyhow::Ok((status, bytes))
        };
        let (status, bytes) = timeout(ANSWER_TIMEOUT, asked).await.context("the JobManager does not answer")??;
        let json: Value = serde_json::from_slice(&bytes).unwrap_or_default();
        anyhow::ensure!(status.is_success() || status == StatusCode::ACCEPTED, "{status}: {}", first_error(&json));
        Ok(json)
    }
}

fn first_error(json: &Value) -> &str {
    let errors = json["errors"].as_array().into_iter().flatten().filter_map(Value::as_str);
    errors.flat_map(str::lines).next().unwrap_or("no reason is given")
}
