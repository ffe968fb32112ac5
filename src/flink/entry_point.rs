//! Which process is a JobManager: the main class on the command line of a JVM.

/// Main classes of JobManagers, in Flink 1.20 and all 2.x: `jobmanager.sh`, `standalone-job.sh`, and Flink's own two
/// for Kubernetes.
pub const ENTRY_POINTS: [&str; 4] = [
    "org.apache.flink.runtime.entrypoint.StandaloneSessionClusterEntrypoint",
    "org.apache.flink.container.entrypoint.StandaloneApplicationClusterEntryPoint",
    "org.apache.flink.kubernetes.entrypoint.KubernetesSessionClusterEntrypoint",
    "org.apache.flink.kubernetes.entrypoint.KubernetesApplicationClusterEntrypoint",
];

/// Options of the `java` launcher whose value is the next argument. All others are one argument, or have their value
/// behind `=` or `:`.
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

/// The main class of a JVM, from its command line as `/proc/<pid>/cmdline` has it: arguments that end with a zero byte.
///
/// Options in an argument file (`@file`) are passed over, as is what environment variables add: a main class is never
/// in there where Flink's scripts start the JVM. `None` when there is none, as with `-jar`.
pub fn main_class(command_line: &[u8]) -> Option<String> {
    let mut arguments = command_line.split(|byte| *byte == 0).skip(1).map(String::from_utf8_lossy);
    while let Some(argument) = arguments.next() {
        match argument.as_ref() {
            "-jar" => return None,
            // `module/class`, or a module that names its main class itself.
            "-m" | "--module" => return arguments.next()?.split_once('/').map(|(_, class)| class.to_owned()),
            option if WITH_VALUE.contains(&option) => drop(arguments.next()),
            option if option.starts_with(['-', '@']) => {}
            "" => {}
            // The launcher takes a class with slashes as well.
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
        // As `jobmanager.sh start-foreground` of the official image 2.3.0 starts it.
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
