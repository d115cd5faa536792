import CLibrary
import Foundation
import MartletTransport

/// What a trainer command keeps between rounds, a directory for each run; bounded, because a server may name a new run each time.
struct TrainerStates {
    let directory: String
    let count: Int

    /// The directory of one run, made where there is none; of the others those used longest ago make room.
    ///
    /// - Throws: `ClientError` of this device's files; for a link at one of the names too.
    func path(run: String) throws -> String {
        try PlainFile.makeDirectory(directory)
        let path = directory + "/" + run
        try PlainFile.makeDirectory(path)
        // What a command writes to its files does not show in the directory's own time.
        utimensat(AT_FDCWD, path, nil, AT_SYMLINK_NOFOLLOW)
        let manager = FileManager.default
        let others = try manager.contentsOfDirectory(atPath: directory).filter { $0 != run }
            .map { name -> (Date, String) in
                let time = try? manager.attributesOfItem(atPath: directory + "/" + name)[.modificationDate] as? Date
                return (time ?? .distantPast, name)
            }
            .sorted { $0 < $1 }
        for (_, name) in others.dropLast(max(0, count - 1)) { try? manager.removeItem(atPath: directory + "/" + name) }
        return path
    }
}
