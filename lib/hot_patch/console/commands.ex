defmodule HotPatch.Console.Commands do
  @moduledoc false
  # What pages and JSON interface do alike: uploads, and operations that go on by themselves.

  alias HotPatch.Cancellation
  alias HotPatch.Console.Authorization
  alias HotPatch.Console.Operations
  alias HotPatch.Console.Request
  alias HotPatch.Console.User
  alias HotPatch.Patch
  alias HotPatch.PatchName
  alias HotPatch.Refusal

  @doc "Who does it, and from where, for the journal."
  @spec who(Request.t(), Authorization.t()) :: keyword()
  def who(request, access), do: [by: access.user.name, from: request.peer]

  @doc "Whether something of the archive may be run for who only looks at it: not for a viewer."
  @spec looks(Authorization.t()) :: keyword()
  def looks(access) do
    if User.may?(access.user, :admin), do: [], else: [configuration: :leave]
  end

  @doc "Takes in the archive that is a request's body."
  @spec upload(Request.t(), Authorization.t()) :: {:ok, Patch.t()} | {:error, Exception.t()}
  def upload(request, access) do
    # What has no such byte the call would take for a path on this node.
    case :binary.match(request.body, <<0>>) do
      :nomatch ->
        {:error,
         %Refusal{
           rule: :not_a_zip,
           message: "the file is no zip archive: make it with zip(1) or another zip tool"
         }}

      _found ->
        HotPatch.upload(
          request.body,
          [name: name(Request.query(request, "file"))] ++ who(request, access)
        )
    end
  end

  @doc """
  The name of a patch, from the name that the client's file has. It is a name and no path.

      iex> HotPatch.Console.Commands.name("C:\\\\fixes\\\\Billing fix (2).zip")
      "Billing-fix-2"
      iex> HotPatch.Console.Commands.name("shop-1.1.0.tar.gz")
      "shop-1.1.0"
  """
  @spec name(String.t() | nil) :: String.t()
  def name(file) do
    name =
      (file || "")
      |> String.split(["/", "\\"])
      |> List.last()
      |> String.replace(~r/\.(zip|tar\.gz|tgz)\z/i, "")
      |> String.replace(~r/[^A-Za-z0-9._-]+/, "-")
      |> String.replace(~r/\A[^A-Za-z0-9]+|[^A-Za-z0-9]+\z/, "")
      |> String.slice(0, 48)

    if name == "", do: "patch", else: name
  end

  @doc "Whether a client's file is called as the tarball of a release."
  @spec tarball?(String.t() | nil) :: boolean()
  def tarball?(file), do: (file || "") =~ ~r/\.(tar\.gz|tgz)\z/i

  # What is begun is kept by the id of its patch, however that was named. Of one that is not found the
  # call itself says why.
  defp whole(id) do
    case PatchName.find(HotPatch.list().items, id) do
      {:ok, patch} -> patch.id
      {:error, _error} -> id
    end
  end

  @doc "Begins an apply, a rollback or a rehearsal; gives the id by which the console knows it."
  @spec begin(
          {:apply | :rollback | :rehearse, String.t()},
          Request.t(),
          Authorization.t(),
          keyword()
        ) ::
          String.t()
  def begin({kind, id}, request, access, options) do
    options = options ++ [progress: :none] ++ who(request, access)
    id = whole(id)
    Operations.begin(kind, id, options, fn -> apply(HotPatch, kind, [id, options]) end)
  end

  @doc """
  Cancels what is under way: by the id of the operation or of its patch, or by that under which it was
  begun on this console.
  """
  @spec cancel(String.t(), Request.t(), Authorization.t(), keyword()) ::
          {:ok, Cancellation.t()} | {:error, Exception.t()}
  def cancel(id, request, access, options) do
    id =
      case Operations.fetch(id) do
        {:ok, %{ended_at: nil, subject: subject}} -> subject
        _ended_or_unknown -> id
      end

    HotPatch.cancel(id, options ++ who(request, access))
  end

  @doc "Begins the restart of a node."
  @spec restart(node(), Request.t(), Authorization.t(), keyword()) :: String.t()
  def restart(node, request, access, options) do
    options = options ++ who(request, access)

    Operations.begin(:restart, Atom.to_string(node), options, fn ->
      HotPatch.restart(node, options)
    end)
  end
end
