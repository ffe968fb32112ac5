package dev.flinkha.jobs;

import java.util.Arrays;
import java.util.HashMap;
import java.util.List;
import java.util.Map;

/** Arguments of the form {@code --name value}; an unknown name is an error, so that a typing mistake shows. */
final class Arguments {
    private final Map<String, String> values = new HashMap<>();

    static Arguments parse(String[] args, String... known) {
        List<String> names = Arrays.asList(known);
        Arguments arguments = new Arguments();
        for (int i = 0; i < args.length; i += 2) {
            String name = args[i].startsWith("--") ? args[i].substring(2) : "";
            if (!names.contains(name)) {
                throw new IllegalArgumentException("unknown argument '" + args[i] + "'; known: " + names);
            }
            if (i + 1 == args.length) {
                throw new IllegalArgumentException("argument '" + args[i] + "' has no value");
            }
            arguments.values.put(name, args[i + 1]);
        }
        return arguments;
    }

    /** The value, or null if the argument was not given. */
    String text(String name) {
        return values.get(name);
    }

    String required(String name) {
        String value = values.get(name);
        if (value == null) {
            throw new IllegalArgumentException("argument '--" + name + "' is missing");
        }
        return value;
    }

    long number(String name, long otherwise) {
        String value = values.get(name);
        try {
            long number = value == null ? otherwise : Long.parseLong(value);
            if (number >= 0) {
                return number;
            }
        } catch (NumberFormatException notANumber) {
            // told below, with the name of the argument
        }
        throw new IllegalArgumentException("argument '--" + name + "' wants a number from 0, not '" + value + "'");
    }
}
