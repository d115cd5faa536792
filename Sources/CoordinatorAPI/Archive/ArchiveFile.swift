package import Foundation

/// One file of a model's archive.
package struct ArchiveFile: Sendable {
    package enum Content: Sendable {
        case bytes(Data)
        /// Sent from disk.
        case file(path: String)
    }

    package var name: String
    package var content: Content

    package init(name: String, content: Content) {
        self.name = name
        self.content = content
    }

    var byteCount: Int {
        get throws {
            switch content {
            case .bytes(let data): return data.count
            case .file(let path):
                let attributes = try FileManager.default.attributesOfItem(atPath: path)
                guard let size = attributes[.size] as? Int else { throw CocoaError(.fileReadUnknown) }
                return size
            }
        }
    }

    /// Gives the content to `send`, block by block.
    func forEachBlock(_ send: @Sendable ([UInt8]) async throws -> Void) async throws {
        switch content {
        case .bytes(let data): try await send([UInt8](data))
        case .file(let path):
            let file = try FileHandle(forReadingFrom: URL(fileURLWithPath: path))
            defer { try? file.close() }
            while let block = try file.read(upToCount: 1 << 18), !block.isEmpty { try await send([UInt8](block)) }
        }
    }
}
