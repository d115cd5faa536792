import Coordination
import HTTPServing
import HTTPTypes
import WireFormat

extension CoordinatorAPI {
    /// What runs of kind analytics have found.
    func addWordRoutes(to routes: inout EndpointRoutes) {
        routes.add(Endpoints.words) { request, run, version in
            let minimum = try request.query["minimum_count"].map { text -> Double in
                guard let value = Double(text), value.isFinite else {
                    throw ParseFailure(status: 400, detail: "minimum_count must be a number")
                }
                return value
            }
            let version = try await coordinator.model(run: run.text, version: version.text)
            try await verify(version)
            let source = try await coordinator.vocabularySource(run: version.run, version: String(version.version))
            var view = try await DiskQueue.run { try source.vocabulary(minimumCount: minimum) }
            if try request.choice("format", default: WordsFormat.json) == .txt {
                // One word a line: what `martlet run create --vocabulary` takes.
                let text = view.items.map { Self.line($0.word) + "\n" }.joined()
                return ServerResponse(
                    status: 200,
                    headers: [.contentType: "text/plain; charset=utf-8"],
                    body: .bytes(Array(text.utf8))
                )
            }
            let (limit, cursor) = try request.page()
            let start = min(cursor ?? 0, view.items.count)
            let end = min(view.items.count, start + limit)
            view.nextCursor = end < view.items.count ? String(end) : nil
            view.items = Array(view.items[start..<end])
            return try Self.json(view)
        }
    }

    private enum WordsFormat: String, CaseIterable {
        case json, txt
    }

    /// A word as a line of a vocabulary file.
    private static func line(_ word: String) -> String {
        word.replacing("\\", with: "\\\\").replacing("\n", with: "\\n").replacing("\r", with: "\\r")
    }
}
