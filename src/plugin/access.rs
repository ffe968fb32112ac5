//! The way to the API server, as kubectl finds it, and requests for objects as JSON.
//!
//! Objects stay JSON until a report is made of them: one that this version does not understand must not hide the
//! others.

use std::path::PathBuf;
use std::time::Duration;

use kube::api::{GetParams, ListParams, Patch, PatchParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::core::Request;
use kube::{Client, Config, Resource};
use serde_json::Value;

use super::failure::Failure;
use crate::api::FlinkHaCluster;
use crate::world::api_server::client_without_retries;
use crate::world::error_text::chain;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
const READ_TIMEOUT: Duration = Duration::from_secs(20);

/// Flags that say which API server and which namespace, with kubectl's names.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct AccessArguments {
    /// Namespace of the cluster; default: that of the context.
    #[arg(short, long, global = true, value_parser = super::parsers::namespace)]
    pub namespace: Option<String>,
    /// Kubeconfig file; default: $KUBECONFIG, else ~/.kube/config.
    #[arg(long, global = true)]
    pub kubeconfig: Option<PathBuf>,
    /// Context of the kubeconfig file.
    #[arg(long, global = true)]
    pub context: Option<String>,
}

/// The API server, and the namespace that was asked for.
#[derive(Clone)]
pub struct PluginAccess {
    pub client: Client,
    pub namespace: String,
    config: Config,
}

impl PluginAccess {
    /// Reads the kubeconfig; connects to nothing yet. `is_endless`: answers may take any time, as a log that is
    /// followed.
    ///
    /// # Errors
    /// When the kubeconfig, or what it names, cannot be read.
    pub async fn of(arguments: &AccessArguments, is_endless: bool) -> Result<Self, Failure> {
        let mut config = config(arguments).await?;
        config.connect_timeout = Some(CONNECT_TIMEOUT);
        config.read_timeout = (!is_endless).then_some(READ_TIMEOUT);
        config.reset_reader_on_write = true;
        let namespace = arguments.namespace.clone().unwrap_or_else(|| config.default_namespace.clone());
        Self::with(config, namespace)
    }

    /// Uses this configuration as it is.
    ///
    /// # Errors
    /// When certificates or credentials cannot be read.
    pub fn with(config: Config, namespace: String) -> Result<Self, Failure> {
        let client = client_of(config.clone())?;
        Ok(Self { client, namespace, config })
    }

    /// A client for connections on which nothing may come for any time. The caller limits the time.
    ///
    /// # Errors
    /// When certificates or credentials cannot be read.
    pub fn patient_client(&self) -> Result<Client, Failure> {
        let mut config = self.config.clone();
        config.read_timeout = None;
        client_of(config)
    }

    /// Reads what is at this path of the API server; `None` if nothing is.
    ///
    /// # Errors
    /// When the request fails.
    pub async fn read(&self, path: &str) -> kube::Result<Option<Value>> {
        let request = http::Request::get(path).body(Vec::new()).map_err(kube::Error::HttpError)?;
        found(self.client.request(request).await)
    }

    /// Posts an object that is not kept, such as a question about rights, and returns the answer.
    ///
    /// # Errors
    /// When the request fails.
    pub async fn post(&self, path: &str, object: &Value) -> kube::Result<Value> {
        let request = http::Request::post(path).header(http::header::CONTENT_TYPE, "application/json");
        let request = request.body(object.to_string().into_bytes()).map_err(kube::Error::HttpError)?;
        self.client.request(request).await
    }

    /// Reads an object of this name; `None` if there is none.
    ///
    /// # Errors
    /// When the request fails.
    pub async fn get<K: Resource<DynamicType = ()>>(&self, namespace: &str, name: &str) -> kube::Result<Option<Value>> {
        let request = Request::new(K::url_path(&(), Some(namespace))).get(name, &GetParams::default());
        found(self.client.request(request.map_err(kube::Error::BuildRequest)?).await)
    }

    /// Reads objects, of all namespaces without one.
    ///
    /// # Errors
    /// When the request fails.
    pub async fn list<K: Resource<DynamicType = ()>>(
        &self,
        namespace: Option<&str>,
        parameters: &ListParams,
    ) -> kube::Result<Vec<Value>> {
        let request = Request::new(K::url_path(&(), namespace)).list(parameters);
        let mut list: Value = self.client.request(request.map_err(kube::Error::BuildRequest)?).await?;
        Ok(match list["items"].take() {
            Value::Array(items) => items,
            _ => Vec::new(),
        })
    }

    /// Changes a FlinkHaCluster by a merge patch, which carries what makes it a compare-and-swap. Returns whether it
    /// was changed: otherwise somebody has changed or replaced it in the meantime.
    ///
    /// # Errors
    /// When the request fails.
    pub async fn patch(&self, name: &str, patch: &Value) -> Result<bool, Failure> {
        let path = FlinkHaCluster::url_path(&(), Some(&self.namespace));
        let request = Request::new(path).patch(name, &PatchParams::default(), &Patch::Merge(patch));
        let request = request.map_err(kube::Error::BuildRequest);
        let patched = match request {
            Ok(request) => self.client.request::<Value>(request).await,
            Err(error) => Err(error),
        };
        match patched {
            Ok(_) => Ok(true),
            Err(kube::Error::Api(status)) if status.code == 409 => Ok(false),
            Err(error) => Err(Failure::request(&format!("change FlinkHaCluster {name}"))(error)),
        }
    }
}

fn found(answer: kube::Result<Value>) -> kube::Result<Option<Value>> {
    match answer {
        Ok(object) => Ok(Some(object)),
        Err(kube::Error::Api(status)) if status.code == 404 && status.reason == "NotFound" => Ok(None),
        Err(error) => Err(error),
    }
}

fn client_of(config: Config) -> Result<Client, Failure> {
    client_without_retries(config).map_err(|error| {
        Failure::Request(format!("failed to use the credentials of the kubeconfig: {}", chain(&error)))
    })
}

async fn config(arguments: &AccessArguments) -> Result<Config, Failure> {
    let failed = |error: &(dyn std::error::Error + 'static)| {
        Failure::Request(format!("failed to find the API server: {}", chain(error)))
    };
    let options = KubeConfigOptions { context: arguments.context.clone(), ..KubeConfigOptions::default() };
    match &arguments.kubeconfig {
        Some(path) => {
            let kubeconfig = Kubeconfig::read_from(path).map_err(|error| failed(&error))?;
            Config::from_custom_kubeconfig(kubeconfig, &options).await.map_err(|error| failed(&error))
        }
        None if arguments.context.is_some() => Config::from_kubeconfig(&options).await.map_err(|error| failed(&error)),
        None => Config::infer().await.map_err(|error| failed(&error)),
    }
}
