//! What the user asks for.

use std::sync::LazyLock;

use product::api::FlinkHaClusterSpec;
use product::api::application::{JobState, UpgradeMode};
use product::api::v1alpha1::OnDelete;
use product::cluster::application::version;
use serde_json::json;

/// Definitions of the application. The last two do not come up.
pub const DEFINITIONS: u8 = 8;
const FAILS: u8 = 6;
const HANGS: u8 = 7;

/// What the user asks for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Asked {
    pub definition: u8,
    pub mode: Mode,
    pub suspended: bool,
    /// `spec.haData.onDelete` is `Delete`.
    pub delete: bool,
    pub nonce: i64,
    /// Something that no new graph is needed for.
    pub scale: i32,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mode {
    #[default]
    LastState,
    Savepoint,
    Stateless,
}

static BASE: LazyLock<FlinkHaClusterSpec> = LazyLock::new(|| {
    let spec = json!({
        "image": "flink",
        "job": { "jarURI": "local:///a.jar", "upgradeDeadline": "60s" },
        "flinkConfiguration": { "execution.checkpointing.savepoint-dir": "s3://b/s" },
        "highAvailability": { "storageDir": "file:///ha" },
        "jobManager": { "replicas": 2 },
        "taskManager": { "replicas": 1 },
    });
    serde_json::from_value(spec).unwrap()
});

/// Versions of the definitions that do not come up: the main method fails, or tasks never run.
static BROKEN: LazyLock<[String; 2]> =
    LazyLock::new(|| [FAILS, HANGS].map(|definition| version(&Asked { definition, ..Asked::default() }.spec())));

pub fn fails(version: &str) -> bool {
    BROKEN[0] == version
}

pub fn hangs(version: &str) -> bool {
    BROKEN[1] == version
}

impl Asked {
    pub fn spec(&self) -> FlinkHaClusterSpec {
        let mut spec = BASE.clone();
        let job = spec.job.as_mut().unwrap();
        match self.definition {
            0 => {}
            1 => job.args = vec!["1".to_owned()],
            2 => job.parallelism = Some(2),
            3 => spec.image = "flink:next".to_owned(),
            4 => job.entry_class = Some("A".to_owned()),
            5 => job.jar_uri = "local:///b.jar".to_owned(),
            other => job.args = vec![other.to_string()],
        }
        let job = spec.job.as_mut().unwrap();
        job.upgrade_mode = match self.mode {
            Mode::LastState => UpgradeMode::LastState,
            Mode::Savepoint => UpgradeMode::Savepoint,
            Mode::Stateless => UpgradeMode::Stateless,
        };
        job.state = if self.suspended { JobState::Suspended } else { JobState::Running };
        job.savepoint_trigger_nonce = Some(self.nonce).filter(|nonce| *nonce != 0);
        spec.task_manager.replicas = 1 + self.scale;
        spec.ha_data.on_delete = if self.delete { OnDelete::Delete } else { OnDelete::Retain };
        spec
    }
}
