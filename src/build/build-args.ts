/** Always there, and left out of the image unless ARG names them: where one builds must not change what one gets. */
const PREDEFINED: readonly string[] = [
  'HTTP_PROXY',
  'http_proxy',
  'HTTPS_PROXY',
  'https_proxy',
  'FTP_PROXY',
  'ftp_proxy',
  'NO_PROXY',
  'no_proxy',
]

type Values = ReadonlyMap<string, string | null>

/** The request's arguments over ARG's defaults. One value a stage; `forStage` begins the next. */
export class BuildArgs {
  /** ARGs of this stage, by name; null: without a default. */
  readonly #declared = new Map<string, string | null>()

  private constructor(
    private readonly given: Values,
    private readonly globals: Map<string, string | null>,
    /** Shared by all stages: what was named anywhere was used. */
    private readonly used: Set<string>,
  ) {}

  static of(given: Readonly<Record<string, string | null>>): BuildArgs {
    return new BuildArgs(new Map(Object.entries(given)), new Map(), new Set())
  }

  /** A stage knows what stands before the first FROM only where it says ARG itself. */
  forStage(): BuildArgs {
    return new BuildArgs(this.given, this.globals, this.used)
  }

  declare(name: string, value: string | null): void {
    this.#declared.set(name, value)
    this.used.add(name)
  }

  declareGlobal(name: string, value: string | null): void {
    this.declare(name, value)
    this.globals.set(name, value)
  }

  /** What FROM may name. */
  globalValues(): Map<string, string> {
    return this.#valuesOf(this.globals)
  }

  /** What this stage's instructions may name. */
  values(): Map<string, string> {
    return this.#valuesOf(this.#declared)
  }

  #valuesOf(declared: Values): Map<string, string> {
    const values = new Map<string, string>()
    for (const name of [...declared.keys(), ...PREDEFINED]) {
      const value = this.given.get(name) ?? declared.get(name) ?? this.globals.get(name)
      if (value != null) values.set(name, value)
    }
    return values
  }

  /** NAME=VALUE of those that the environment does not set already: it is stronger. */
  beside(environment: ReadonlyMap<string, string>): string[] {
    return [...this.values()].filter(([name]) => !environment.has(name)).map(([name, value]) => `${name}=${value}`)
  }

  /** Whether it belongs to what makes a step the same step. */
  isRemembered(name: string): boolean {
    return this.#declared.has(name) || !PREDEFINED.includes(name)
  }

  /** Given, but named by no ARG. */
  unused(): string[] {
    return [...this.given.keys()].filter((name) => !this.used.has(name) && !PREDEFINED.includes(name))
  }
}
