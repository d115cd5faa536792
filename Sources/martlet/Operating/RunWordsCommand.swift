import ArgumentParser
import Foundation
import LocalTraining
import MartletOperator
import StrictJSON
import WireFormat

extension RunCommand {
    struct Words: AsyncParsableCommand {
        static let configuration = CommandConfiguration(
            abstract: "The words that a run of kind analytics has found.",
            discussion: """
                    martlet run words run_7f3a
                    martlet run words run_7f3a --vocabulary vocab.txt   for: martlet run create FILE --vocabulary vocab.txt
                """
        )
        @OptionGroup var access: ServerAccess
        @Argument(help: "The run's id.") var run: String
        @Option(help: "The model version: a number or latest.") var version = "latest"
        @Option(help: "Leave words with a lower count out; default: the run's own, or what noise hardly reaches.")
        var minimumCount: Double?
        @Option(help: "Write the words to this vocab.txt, the four specials first.") var vocabulary: String?

        func run() async throws {
            let target = Endpoints.words(RunReference(run), VersionReference(version)).with("limit", 10_000)
                .with("minimum_count", minimumCount)
            var first: VocabularyView?
            var items: [VocabularyView.Item] = []
            var cursor: String?
            repeat {
                let page = try await access.answer(to: target.with("cursor", cursor)).decoded()
                items += page.items
                cursor = page.nextCursor
                if first == nil { first = page }
            } while cursor != nil
            guard var view = first else { return }
            view.items = items
            view.nextCursor = nil
            if let vocabulary {
                try Data(VocabularyFile.encode(items.map(\.word)).utf8)
                    .write(to: URL(fileURLWithPath: vocabulary), options: .atomic)
            }
            if access.json { return try access.show(WireCoding.encode(view)) }
            show(view)
        }

        private func show(_ view: VocabularyView) {
            let terminal = Terminal.standardOutput
            var table =
                view.method == .histogram
                ? TextTable(("WORD", .left), ("CLIENTS", .right)) : TextTable(("WORD", .left))
            for item in view.items.prefix(vocabulary == nil ? 1000 : 20) {
                let word = Terminal.printable(item.word)
                if let count = item.count { table.add(word, Readable.rounded(count, 1)) } else { table.add(word) }
            }
            table.show(on: terminal)
            print(summary(view))
            if let vocabulary { print("\(view.items.count) words and 4 specials are in \(vocabulary)") }
        }

        private func summary(_ view: VocabularyView) -> String {
            guard let minimum = view.minimumCount else {
                let unfinished = view.unfinished.map { Terminal.printable($0) + "…" }.joined(separator: ", ")
                return
                    "\(view.items.count) words, each with a noised count of \(Readable.rounded(view.threshold ?? 0, 1)) votes or more"
                    + (unfinished.isEmpty ? "" : "; longer ones begin with \(unfinished)")
            }
            let error = view.countError ?? 0
            return
                "\(view.items.count) words with a count of \(Readable.rounded(minimum, 1)) or more, \(view.hidden) below"
                + (error > 0 ? "; the noise on a count has standard deviation \(Readable.rounded(error, 1))" : "")
        }
    }
}

/// Puts a file's words into a run file.
enum RunWordFiles {
    /// The document with `--candidates` and `--vocabulary` in it.
    static func adding(_ document: JSONValue, candidates: String?, vocabulary: String?) throws -> JSONValue {
        guard case .object(var fields) = document else { return document }
        func nested(_ name: String, in fields: [String: JSONValue]) -> [String: JSONValue] {
            if case .object(let object)? = fields[name] { return object }
            return [:]
        }
        if let candidates {
            var analytics = nested("analytics", in: fields)
            analytics["candidates"] = .array(try words(at: candidates).map { .string($0) })
            fields["analytics"] = .object(analytics)
        }
        if let vocabulary {
            var model = nested("model", in: fields)
            var config = nested("config", in: model)
            let words = try words(at: vocabulary)
            let given = config["tokenizer"]
            let isCharacters = given == .string("char") || nested("tokenizer", in: config)["type"] == .string("char")
            config["tokenizer"] = .object(
                isCharacters
                    ? ["type": .string("char"), "alphabet": .string(words.joined())]
                    : ["type": .string("word"), "vocabulary": .array(words.map { .string($0) })]
            )
            model["config"] = .object(config)
            fields["model"] = .object(model)
        }
        return .object(fields)
    }

    /// The words of a vocab.txt, or of a file with one word a line.
    static func words(at path: String) throws -> [String] {
        guard let data = FileManager.default.contents(atPath: path) else {
            throw Failure("cannot read \(path): \(DocumentFile.reason(path))")
        }
        let text = String(decoding: data, as: UTF8.self)
        guard !text.hasPrefix("<pad>\n") else {
            return try Failure.explaining(path) { try VocabularyFile.decode(text) }
        }
        let words = text.split(whereSeparator: \.isNewline).map(String.init)
        guard !words.isEmpty else { throw Failure("\(path) holds no words") }
        return words
    }
}
