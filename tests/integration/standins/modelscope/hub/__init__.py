"""As in modelscope: the folder of the client's parts."""
