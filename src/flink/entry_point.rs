//! Recognizes a JobManager's process by the main class on the command line of a JVM.

/// Main classes of JobManagers in Flink 1.20 and all 2.x: of `jobmanager.sh`, of `standalone-job.sh`, and the two for
/// native Kubernetes.
pub const ENTRY_POINTS: [&str; 4] = [
    "org.apache.flink.runtime.entrypoint.StandaloneSessionClusterEntrypoint",
    "org.apache.flink.container.entrypoint.StandaloneApplicationClusterEntryPoint",
    "org.apache.flink.kubernetes.entrypoint.KubernetesSessionClusterEntrypoint",
    "org.apache.flink.kubernetes.entrypoint.KubernetesApplicationClusterEntrypoint",
];

/// Options of the `java` launcher whose value is the next argument. Every other option is one argument, with its value,
/// if any, after `=` or `:`.
const WITH_VALUE: [&str; 16] = [
    "-cp",
    "-classpath",
    "--class-path",
    "-p",
    "--module-path",
    "--upgrade-module-path",
    "--add-modules",
    "--limit-modules",
    "--add-exports",
    "--add-opens",
    "--add-reads",
    "--patch-module",
    "--enable-native-access",
    "--source",
    "-d",
    "--describe-module",
];

/// Returns the main class of a JVM. `command_line` has the format of `/proc/<pid>/cmdline`: arguments that end with a
/// zero byte. `None` if there is no main class, as with `-jar`.
///
/// It ignores options in an argument file (`@file`) and in environment variables: Flink's scripts never put the main
/// class there.
pub fn main_class(command_line: &[u8]) -> Option<String> {
    let mut arguments = command_line.split(|byte| *byte == 0).skip(1).map(String::from_utf8_lossy);
    while let Some(argument) = arguments.next() {
        match argument.as_ref() {
            "-jar" => return None,
            // The value is `module/class`, or a module that defines its own main class.
            "-m" | "--module" => return arguments.next()?.split_once('/').map(|(_, class)| class.to_owned()),
            option if WITH_VALUE.contains(&option) => drop(arguments.next()),
            option if option.starts_with(['-', '@']) => {}
            "" => {}
            // The launcher also accepts a class name with slashes.
            class => return Some(class.replace('/', ".")),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn class_of(line: &str) -> Option<String> {
        main_class(format!("{line} ").replace(' ', "\0").as_bytes())
    }

    #[test]
    fn the_main_class_of_flinks_own_scripts_is_found() {
        // The command line of `jobmanager.sh start-foreground` in the official image 2.3.0.
        let session = "/opt/java/openjdk/bin/java -Xmx1073741824 -Xms1073741824 -XX:MaxMetaspaceSize=268435456 -XX:+IgnoreUnrecognizedVMOptions \
            --add-exports=java.rmi/sun.rmi.registry=ALL-UNNAMED --add-opens=java.base/java.lang=ALL-UNNAMED -Dlog.file=/a.log \
            -Dlog4j.configuration=file:/opt/flink/conf/log4j-console.properties -javaagent:/agents/agent.jar=port=9010 -agentlib:jdwp=server=y \
            -classpath /opt/flink/lib/flink-cep-2.3.0.jar:/opt/flink/lib/flink-dist-2.3.0.jar:::/opt/hadoop/conf \
            org.apache.flink.runtime.entrypoint.StandaloneSessionClusterEntrypoint -D jobmanager.memory.heap.size=1073741824b \
            --configDir /opt/flink/conf --executionMode cluster";
        assert_eq!(class_of(session).as_deref(), Some(ENTRY_POINTS[0]));
        let application = "java @/etc/java/options -XX:+UseG1GC --add-opens java.base/java.util=ALL-UNNAMED -cp /opt/flink/lib/* \
            org.apache.flink.container.entrypoint.StandaloneApplicationClusterEntryPoint --job-classname org.example.Job";
        assert_eq!(class_of(application).as_deref(), Some(ENTRY_POINTS[1]));
        let by_module_path = format!("java -p /modules --add-modules ALL-SYSTEM {}", ENTRY_POINTS[2].replace('.', "/"));
        assert_eq!(class_of(&by_module_path).as_deref(), Some(ENTRY_POINTS[2]));
        let of_a_module = format!("java --module-path /modules -m flink.dist/{}", ENTRY_POINTS[3]);
        assert_eq!(class_of(&of_a_module).as_deref(), Some(ENTRY_POINTS[3]));
    }

    #[test]
    fn what_only_names_an_entry_point_is_none() {
        let named = ENTRY_POINTS[0];
        for line in [
            format!("java -Dclass={named} -cp x org.example.Main {named}"),
            format!("java -cp {named} org.apache.flink.client.cli.CliFrontend list"),
            format!("java -jar tool.jar {named}"),
            format!("java --source 17 Ask.java {named}"),
            "java -m some.module".to_owned(),
            "java".to_owned(),
            String::new(),
            format!("curl http://127.0.0.1:6180/ {named}"),
            format!("/bin/bash /opt/flink/bin/jobmanager.sh start-foreground {named}"),
        ] {
            let class = class_of(&line);
            assert!(class.as_deref().is_none_or(|class| !ENTRY_POINTS.contains(&class)), "{line}: {class:?}");
        }
    }
}
