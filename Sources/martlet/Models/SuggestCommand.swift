import ArgumentParser
import Foundation
import LocalTraining
import StrictJSON
import WireFormat

struct SuggestCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "suggest",
        abstract: "The words with which a text may go on."
    )

    @OptionGroup var options: ModelOptions
    @Option(help: "The text so far.") var text: String?
    @Flag(help: "Read texts from standard input, one a line, and answer each with a line.") var stdin = false
    @Option(help: "Words with this beginning only; without it, letters at the text's end are the beginning.")
    var prefix: String?
    @Option(name: .shortAndLong, help: "How many suggestions.") var k = 3
    @Option(help: "A file of words that are never suggested, one a line.") var blocklist: String?
    @Option(help: "A user's words, as `martlet personalize` writes them; default: personal-cache.json of the model.")
    var cache: String?
    @Flag(help: "Print JSON.") var json = false

    func validate() throws {
        guard (text == nil) == stdin else { throw ValidationError("give --text or --stdin, and not both") }
        guard k >= 1 else { throw ValidationError("-k must be at least 1") }
    }

    func run() throws {
        let directory = try options.open()
        let suggester = try Failure.explaining(options.model) {
            try Suggester(
                architecture: try options.language(directory),
                model: directory.model,
                base: directory.base,
                blocklist: try blockedWords(),
                cache: try userCache()
            )
        }
        guard stdin else { return try show(suggester.suggest(after: text ?? "", prefix: prefix, count: k)) }
        while let line = readLine() {
            try show(suggester.suggest(after: line, prefix: prefix, count: k))
            fflush(nil)
        }
    }

    private func show(_ suggestions: [Suggestion]) throws {
        guard json else {
            print(suggestions.map { Terminal.printable($0.word) }.joined(separator: stdin ? "\t" : "\n"))
            return
        }
        let items = suggestions.map { item in
            JSONText.object([("word", JSONText.quoted(item.word)), ("p", JSONText.number(Double(item.probability)))])
        }
        print(JSONText.array(items))
    }

    private func blockedWords() throws -> Set<String> {
        guard let blocklist else { return [] }
        guard let data = FileManager.default.contents(atPath: blocklist) else {
            throw Failure("cannot read \(blocklist): \(DocumentFile.reason(blocklist))")
        }
        let lines = String(decoding: data, as: UTF8.self).split(whereSeparator: \.isNewline)
        return Set(lines.map { $0.trimmingCharacters(in: .whitespaces) }.filter { !$0.isEmpty })
    }

    private func userCache() throws -> PersonalCache? {
        let path = cache ?? options.model + "/personal-cache.json"
        guard let data = FileManager.default.contents(atPath: path) else {
            if let cache { throw Failure("cannot read \(cache): \(DocumentFile.reason(cache))") }
            return nil
        }
        guard let known = try? WireCoding.decode(PersonalCache.self, from: data) else {
            throw Failure("\(path) is not a cache that `martlet personalize` wrote")
        }
        return known
    }
}
