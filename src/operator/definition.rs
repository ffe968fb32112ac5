//! Applies the CustomResourceDefinition before the chart is upgraded: Helm installs it and never changes it again.

use std::io::Write;

use anyhow::Context as _;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{Patch, PatchParams};
use kube::{Api, Client, Config, CustomResourceExt, ResourceExt};
use serde_json::{Value, json};

use crate::api::FlinkHaCluster;
use crate::api::crd;
use crate::world::api_server;
use crate::world::error_text::brief;

const FIELD_MANAGER: &str = "flinkha-crds";

/// Flags of `flinkha crd`.
#[derive(Clone, Debug, clap::Args)]
pub struct CrdArguments {
    /// Apply it to the cluster instead, unless the installed one has fields that this one lacks.
    #[arg(long)]
    pub apply: bool,
}

/// What has been done with the installed definition.
#[derive(Debug, PartialEq, Eq)]
pub enum DefinitionChange {
    /// It has been changed.
    Applied,
    /// It was this one already.
    Current,
    /// It declares these fields, which this one lacks, so it stays.
    Later(Vec<String>),
}

/// Prints the definition, or applies it.
///
/// # Errors
/// When the definition is not installed, or the API server rejects the change.
pub async fn run(arguments: CrdArguments) -> anyhow::Result<()> {
    if !arguments.apply {
        return Ok(std::io::stdout().write_all(crd::yaml()?.as_bytes())?);
    }
    let config = Config::infer().await.context("failed to find the API server")?;
    let client = api_server::client_without_retries(config).context("failed to read the access to the API server")?;
    match apply(&client).await? {
        DefinitionChange::Applied => tracing::info!("the CustomResourceDefinition is now that of this version"),
        DefinitionChange::Current => tracing::info!("the CustomResourceDefinition is that of this version already"),
        DefinitionChange::Later(fields) => tracing::warn!(
            fields = fields.join(", "),
            "the CustomResourceDefinition stays as it is, because it is of a later version and declares these fields"
        ),
    }
    Ok(())
}

/// Applies the definition over the version of the installed one that was examined.
///
/// # Errors
/// When the definition is not installed, or the API server rejects the change.
pub async fn apply(client: &Client) -> anyhow::Result<DefinitionChange> {
    let name = FlinkHaCluster::crd_name();
    let definitions: Api<CustomResourceDefinition> = Api::all(client.clone());
    let installed = definitions.get(name).await.map_err(|error| match error {
        kube::Error::Api(status) if status.code == 404 => anyhow::anyhow!(
            "the CustomResourceDefinition {name} is not installed; apply the one in the folder crds of the chart"
        ),
        error => anyhow::anyhow!("failed to read the CustomResourceDefinition {name}: {}", brief(&error)),
    })?;
    let own = FlinkHaCluster::crd();
    let lost = crd::only_in(&json!(installed.spec), &json!(own.spec));
    if !lost.is_empty() {
        return Ok(DefinitionChange::Later(lost));
    }
    let before = installed.resource_version();
    let mut patch: Value = json!(own);
    patch["metadata"]["resourceVersion"] = json!(before);
    let parameters = PatchParams::apply(FIELD_MANAGER).force();
    let after = definitions
        .patch(name, &parameters, &Patch::Apply(patch))
        .await
        .map_err(|error| anyhow::anyhow!("failed to apply the CustomResourceDefinition {name}: {}", brief(&error)))?;
    Ok(if after.resource_version() == before { DefinitionChange::Current } else { DefinitionChange::Applied })
}
