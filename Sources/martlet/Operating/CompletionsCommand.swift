import ArgumentParser

/// Prints what makes a shell complete `martlet`'s commands and options.
struct CompletionsCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "completions",
        abstract: "Print completions for bash, zsh or fish.",
        discussion: """
            bash:  martlet completions bash > ~/.local/share/bash-completion/completions/martlet
            zsh:   martlet completions zsh > ~/.zfunc/_martlet     (with ~/.zfunc in $fpath before compinit)
            fish:  martlet completions fish > ~/.config/fish/completions/martlet.fish
            """
    )
    @Argument(help: "bash, zsh or fish.") var shell: String

    func run() throws {
        guard let kind = CompletionShell(rawValue: shell) else {
            throw ValidationError("there are completions for bash, zsh and fish, not for \(shell)")
        }
        print(Martlet.completionScript(for: kind))
    }
}
