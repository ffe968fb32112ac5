//! Options of JobManagers' JVMs.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Which options the operator gives to the JVMs of JobManagers. TaskManagers have none of it.
#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize, JsonSchema, PartialEq)]
pub enum JvmOptions {
    /// Those of a process that coordinates and computes little.
    #[default]
    Default,
    /// None.
    None,
}
