import ArgumentParser
import Foundation
import StrictJSON

struct ConfigCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "config",
        abstract: "The server's settings.",
        subcommands: [Check.self]
    )

    /// Prints every setting with its value and where that comes from; ends with 1 when one is wrong.
    struct Check: ParsableCommand {
        static let configuration = CommandConfiguration(
            abstract: "Show the effective settings and where each comes from.",
            discussion: "Flags come before MARTLET_* variables, those before the file, and that before the defaults."
        )
        @OptionGroup var options: ServerOptions
        @Flag(help: "Print JSON.") var json = false
        @Flag(help: "Say what each setting means.") var explain = false

        func run() throws {
            let settings: Settings
            do {
                settings = try options.settings()
                _ = try ServerPlan(settings, needsDirectory: false)
            } catch let error as Settings.Invalid {
                throw Failure(error.description)
            }
            if settings.optional("data_dir") == nil {
                // Not among the settings, which programs read.
                printError("Note: data_dir is not set. A server needs it: give --data-dir DIR, or set it in the file.")
            }
            if json { return try printJSON(settings) }
            let width = SettingDefinition.all.map(\.key.count).max() ?? 0
            for definition in SettingDefinition.all {
                guard let (value, source) = settings.values[definition.key] else { continue }
                let name = definition.key.padding(toLength: width, withPad: " ", startingAt: 0)
                print("\(name)  \(value.isEmpty ? "-" : value)  (\(source))")
                if explain { print("    \(definition.help) \(definition.variable)") }
            }
        }

        private func printJSON(_ settings: Settings) throws {
            let object = settings.values.mapValues { ["value": $0.value, "source": "\($0.source)"] }
            Terminal.document(try JSONValue(encoding: object).prettyText)
        }
    }
}
